"""Pictures that the tiny model in tests/golden knows, for tests of the export; and a model to convert."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn


def picture(seed: int, width: int = 32, height: int = 32) -> np.ndarray:
    """uint8 [height, width, 3]: soft colours; odd seeds have a scratch (1 modulo 4) or a stain (3 modulo 4)."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(96, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    if seed % 4 == 1:
        pixels[height // 3 : height // 3 + height // 12, width // 4 :] //= 5
    elif seed % 4 == 3:
        pixels[height // 2 : height // 2 + height // 3, width // 4 : width // 2] //= 3
    return pixels


def pictures(count: int, start: int = 0, width: int = 32, height: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, height, width, 3], and bool [count]: bad."""
    seeds = np.arange(start, start + count)
    return np.stack([picture(int(seed), width, height) for seed in seeds]), seeds % 2 == 1


class SmallNet(nn.Module):
    """float32 [N, H, W, 3], 0..255 -> score [N, 1], and types [N, 2] when it has them; deterministic weights.

    It has what hurts in int8: channel 3 of the first layer is nearly dead (almost no weight, but a bias, as pruning
    batch norms leave them), and a max-pooling is padded, which TensorFlow Lite does with minus infinity.
    """

    def __init__(self, types: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.score = nn.Linear(32, 1)
            self.types = nn.Linear(32, 2) if types else None
        with torch.no_grad():
            self.first.weight[3] = 1e-12
            assert self.first.bias is not None
            self.first.bias[3] = 2.0
            self.second.weight[:, 3] = 0.05  # what follows depends on it

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        x = (x.permute(0, 3, 1, 2) - 127.5) * (1 / 64)
        x = F.max_pool2d(F.relu6(self.first(x)), 3, stride=1, padding=1)
        x = F.relu6(self.second(x))
        pooled = torch.cat([x.mean((2, 3), keepdim=True), F.max_pool2d(x, x.shape[2:])], dim=1).flatten(1)
        score: torch.Tensor = self.score(pooled)
        return score if self.types is None else (score, self.types(pooled))

    @torch.inference_mode()
    def score_pixels(self, pixels: np.ndarray, batch: int = 32) -> np.ndarray:
        outputs = self(torch.from_numpy(pixels).float())
        scores: torch.Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return scores[:, 0].double().numpy()


class FadingNet(SmallNet):
    """The same function, but its second map is a hundred-millionth as large: of a ReLU6 there only the ReLU counts."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            assert self.second.bias is not None
            self.second.weight *= 1e-8
            self.second.bias *= 1e-8
            self.score.weight *= 1e8
            assert self.types is not None
            self.types.weight *= 1e8


class NotConvertible(SmallNet):
    """Fails when it is run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError("no such operation")


class TwoScores(SmallNet):
    """Gives something else than one score for each picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return x.mean((1, 2))[:, :2]
