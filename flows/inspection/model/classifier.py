"""The classifier: normalisation, a backbone, features pooled from several layers, and a linear head, in one graph.

Every operation here converts to TensorFlow Lite and runs in int8. Standardisation of the pooled features is a 1x1
depthwise convolution, since its weights are quantised channel by channel: features of very different ranges then meet
in the head with the same range, and the head's sum is taken in 32 bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from inspection.model.backbones import build_layers

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # Source: torchvision's weights, RGB, 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)

Output = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class Pixels(Protocol):
    """Images that can be read by index: an array, a memory map or a reader of shards; uint8 [N, H, W, 3]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, H, W, 3]."""

    def __len__(self) -> int:
        """How many images."""

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        """Read the images of these indices, uint8 [len(indices), H, W, 3]."""


class Scorer(nn.Module):
    """What every model of a line can do: give one defect logit, and type logits when it knows defect types."""

    defect_types: tuple[str, ...] = ()

    @torch.inference_mode()
    def score_pixels(self, pixels: Pixels, batch: int = 32) -> np.ndarray:
        """Score images.

        Args:
            pixels: uint8 [N, H, W, 3], RGB.
            batch: images in memory as floats at once.

        Returns:
            float64 [N], the defect logit; higher is worse.
        """
        return self._score(pixels, batch)[0]

    @torch.inference_mode()
    def score_types(self, pixels: Pixels, batch: int = 32) -> np.ndarray:
        """Type logits of images, float64 [N, T]; T is 0 without defect types."""
        return self._score(pixels, batch)[1]

    def _score(self, pixels: Pixels, batch: int) -> tuple[np.ndarray, np.ndarray]:
        self.eval()
        device = next(self.parameters()).device
        scores = np.zeros(len(pixels))
        types = np.zeros((len(pixels), len(self.defect_types)))
        for rows in batches_of(np.arange(len(pixels)), batch):
            output = self(torch.from_numpy(np.ascontiguousarray(pixels[rows])).to(device).float())
            if isinstance(output, tuple):
                scores[rows], types[rows] = output[0][:, 0].double().cpu().numpy(), output[1].double().cpu().numpy()
            else:
                scores[rows] = output[:, 0].double().cpu().numpy()
        return scores, types


@dataclass(frozen=True)
class Design:
    """How to rebuild a `Classifier`."""

    backbone: str  # a key of `backbones.ARCHITECTURES`
    taps: tuple[int, ...]  # layers whose output is pooled, ascending
    pools: tuple[str, ...] = ("mean", "max")
    defect_types: tuple[str, ...] = ()


class Classifier(Scorer):
    """A backbone with a standardised linear head on pooled features."""

    def __init__(self, design: Design, layers: nn.ModuleList | None = None) -> None:
        super().__init__()
        self.design = design
        self.defect_types = design.defect_types
        layers = build_layers(design.backbone) if layers is None else layers
        self.layers = nn.ModuleList(list(layers)[: design.taps[-1] + 1])  # what lies behind the last tap is not shipped
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)
        self.widths = [width for width in self._tap_widths() for _ in design.pools]  # channels of each pooled tensor
        self.standardise = nn.ModuleList(_depthwise(width) for width in self.widths)
        size = sum(self.widths)
        self.score = nn.Linear(size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.types = nn.Linear(size, len(design.defect_types)) if design.defect_types else None

    def forward(self, x: torch.Tensor) -> Output:
        """Score images.

        Args:
            x: float32 [N, H, W, 3], RGB, 0..255.

        Returns:
            The defect logit [N, 1]; with defect types also their logits [N, T].
        """
        features = torch.cat(
            [scale(pooled) for scale, pooled in zip(self.standardise, self.pool(x), strict=True)], dim=1
        ).flatten(1)
        score: torch.Tensor = self.score(features)
        return score if self.types is None else (score, self.types(features))

    def pool(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Raw pooled features, one [N, C, 1, 1] for each tap and pool; x: float32 [N, H, W, 3], 0..255."""
        x = (x.permute(0, 3, 1, 2) - self.get_buffer("mean")) / self.get_buffer(
            "std"
        )  # permuting NHWC gives channels_last without a copy
        pooled: list[torch.Tensor] = []
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.design.taps:
                for pool in self.design.pools:
                    pooled.append(x.mean((2, 3), keepdim=True) if pool == "mean" else F.max_pool2d(x, x.shape[2:]))
        return pooled

    @torch.no_grad()
    def set_standardisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Make the head see (feature - mean) / std; both [F], in the order of `pool`."""
        parts = zip(self.standardise, mean.split(self.widths), std.split(self.widths), strict=True)
        for scale, centre, spread in parts:
            scale.get_parameter("weight").copy_((1 / spread).view(-1, 1, 1, 1))
            scale.get_parameter("bias").copy_(-centre / spread)

    def _tap_widths(self) -> Iterator[int]:
        """Channels at each tap."""
        was_training = self.layers.training
        self.layers.eval()
        with torch.no_grad():
            x = torch.zeros(1, 3, 64, 64)
            for index, layer in enumerate(self.layers):
                x = layer(x)
                if index in self.design.taps:
                    yield x.shape[1]
        self.layers.train(was_training)


class Averaged(Scorer):
    """Several classifiers in one graph; their logits, brought to a common scale in training, are averaged."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.defect_types = members[0].defect_types
        if any(member.defect_types != self.defect_types for member in members):
            raise ValueError(f"members know different defect types: {[member.defect_types for member in members]}")

    def forward(self, x: torch.Tensor) -> Output:
        """Score images as `Classifier.forward` does."""
        outputs = [member(x) for member in self.members]
        if not self.defect_types:
            return _average(outputs)
        return _average([score for score, _ in outputs]), _average([types for _, types in outputs])


def batches_of(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut indices into runs of at most `size`."""
    return (indices[start : start + size] for start in range(0, len(indices), size))


def _depthwise(width: int) -> nn.Conv2d:
    scale = nn.Conv2d(width, width, 1, groups=width)
    nn.init.ones_(scale.weight)
    assert scale.bias is not None
    nn.init.zeros_(scale.bias)
    return scale.requires_grad_(False)


def _average(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)
