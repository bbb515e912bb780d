"""What is normal at each place of the picture, for parts that always lie the same way.

A defect is where a feature differs from what good parts show at that very place. The difference, in standard
deviations of the good parts there, is pooled over the picture: how far the farthest place is off, and how far all are
on average, upwards and downwards. Where good parts differ among themselves (edges that move), little is noticed.

Source: Defard et al., PaDiM, 2021, with one variance for each feature instead of a covariance matrix: it needs fewer
good parts, and its operations run in int8.
"""

import torch
import torch.nn.functional as F
from torch import nn

LARGEST_MAP = 112  # px; finer maps are averaged down first: a constant is stored for each of their places
FLOOR = 0.3  # of the channel's mean spread: flat places are not taken more seriously than the camera's noise allows


class Places(nn.Module):
    """Differences of a feature map from the good parts, pooled."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        """Make room for the statistics of a feature map [channels, height, width]."""
        super().__init__()
        self.reduce = -(-max(height, width) // LARGEST_MAP)
        shape = (1, channels, height // self.reduce, width // self.reduce)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("sharpness", torch.ones(shape))  # 1 / standard deviation

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Pooled differences, four of [N, C, 1, 1]: largest and mean, upwards and downwards; x: [N, C, H, W]."""
        x = self.shrink(x)
        pooled = []
        for difference in (x - self.get_buffer("mean"), self.get_buffer("mean") - x):
            map_ = F.relu(difference * self.get_buffer("sharpness"))
            pooled += [F.max_pool2d(map_, map_.shape[2:]), map_.mean((2, 3), keepdim=True)]
        return pooled

    def shrink(self, x: torch.Tensor) -> torch.Tensor:
        """Average the map down to the places' grid."""
        return F.avg_pool2d(x, self.reduce) if self.reduce > 1 else x

    def set_statistics(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Learn the good parts; both [C, H, W] on the places' grid, variance over the parts."""
        spread = variance.clamp(min=0).sqrt()
        floor = FLOOR * spread.mean((1, 2), keepdim=True)
        spread = torch.maximum(spread, torch.maximum(floor, floor.mean() * 0.1 + 1e-6))
        self.get_buffer("mean").copy_(mean[None])
        self.get_buffer("sharpness").copy_(1 / spread[None])


class Moments:
    """Running mean and variance of feature maps over images, in double precision."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, maps: torch.Tensor) -> None:
        """Count a batch, [N, C, H, W]."""
        maps = maps.double()
        self._count += len(maps)
        self._sum = self._sum.to(maps.device) + maps.sum(0)
        self._squares = self._squares.to(maps.device) + (maps * maps).sum(0)

    @property
    def mean(self) -> torch.Tensor:
        """Mean of each place, [C, H, W]."""
        return self._sum / self._count

    @property
    def variance(self) -> torch.Tensor:
        """Variance of each place, [C, H, W]."""
        return self._squares / self._count - self.mean**2
