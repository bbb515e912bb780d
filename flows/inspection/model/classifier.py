"""The classifier: normalisation, a backbone, features pooled from several layers, and a linear head, in one graph.

Every operation here converts to TensorFlow Lite and runs in int8. Standardisation of the pooled features is a 1x1
depthwise convolution, since its weights are quantised channel by channel: features of very different ranges then meet
in the head with the same range, and the head's sum is taken in 32 bits. A ReLU6, which costs nothing after a
convolution, cuts them off at six standard deviations: one odd picture cannot widen the range for all.

The first convolution pads the picture with one grey level, `NEUTRAL`, and not with the normalised zero of each colour.
So normalisation can be folded into that convolution without any error: what is left of it is the subtraction of
`NEUTRAL`, which an int8 model has for nothing, as the zero point of its input (docs/decisions/0014).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from inspection.model.allocator import keep_freed_memory
from inspection.model.backbones import build_layers
from inspection.model.places import Places

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # Source: torchvision's weights, RGB, 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
NEUTRAL = 114.0  # grey level around the picture: no colour's mean is further from it than 0.18 of its deviation

HEAD_CENTRE = 3.0  # what the head sees of an average feature: the middle of ReLU6

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

    def fold_normalisation(self) -> None:
        """Bring the graph into the form that ships, with the same logits; for a copy that is not trained any more."""

    @torch.inference_mode()
    def score_pixels(self, pixels: Pixels, batch: int = 8) -> np.ndarray:
        """Score images.

        Args:
            pixels: uint8 [N, H, W, 3], RGB.
            batch: images in memory as floats at once; more are slower on a CPU, whose cache they outgrow.

        Returns:
            float64 [N], the defect logit; higher is worse.
        """
        return self._score(pixels, batch)[0]

    @torch.inference_mode()
    def score_types(self, pixels: Pixels, batch: int = 8) -> np.ndarray:
        """Type logits of images, float64 [N, T]; T is 0 without defect types."""
        return self._score(pixels, batch)[1]

    def _score(self, pixels: Pixels, batch: int) -> tuple[np.ndarray, np.ndarray]:
        self.eval()
        keep_freed_memory()
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
    place_taps: tuple[int, ...] = ()  # taps that are also compared with the good parts place by place
    input_size: tuple[int, int] = (0, 0)  # px, height and width; needed with place_taps only


class Classifier(Scorer):
    """A backbone with a standardised linear head on pooled features."""

    def __init__(self, design: Design, layers: nn.ModuleList | None = None) -> None:
        super().__init__()
        self.design = design
        self.defect_types = design.defect_types
        layers = build_layers(design.backbone) if layers is None else layers
        self.layers = nn.ModuleList(list(layers)[: design.taps[-1] + 1])  # what lies behind the last tap is not shipped
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean - NEUTRAL, persistent=False)
        self.register_buffer("std", std, persistent=False)
        first = self._first_convolution()
        height, width = (int(size) for size in first.padding)
        self.border, first.padding = (width, width, height, height), (0, 0)  # `maps` pads
        self.folded = False
        self.places = nn.ModuleDict()
        self.widths: list[int] = []  # channels of each pooled tensor
        for tap, (channels, height, width) in self._tap_shapes().items():
            self.widths += [channels] * len(design.pools)
            if tap in design.place_taps:
                self.places[str(tap)] = Places(channels, height, width)
                self.widths += [channels] * 4
        self.standardise = nn.ModuleList(_depthwise(width) for width in self.widths)
        size = sum(self.widths)
        self.score = nn.Linear(size, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.types = nn.Linear(size, len(design.defect_types)) if design.defect_types else None
        self.centred = False

    def forward(self, x: torch.Tensor) -> Output:
        """Score images.

        Args:
            x: float32 [N, H, W, 3], RGB, 0..255.

        Returns:
            The defect logit [N, 1]; with defect types also their logits [N, T].
        """
        parts = zip(self.standardise, self.pool(x), strict=True)
        features = torch.cat([F.relu6(scale(pooled)) for scale, pooled in parts], dim=1).flatten(1)
        if self.centred:
            features = features - HEAD_CENTRE
        score: torch.Tensor = self.score(features)
        return score if self.types is None else (score, self.types(features))

    def pool(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Raw pooled features, one [N, C, 1, 1] for each of `widths`; x: float32 [N, H, W, 3], 0..255."""
        pooled: list[torch.Tensor] = []
        for tap, map_ in self.maps(x):
            for pool in self.design.pools:
                pooled.append(map_.mean((2, 3), keepdim=True) if pool == "mean" else F.max_pool2d(map_, map_.shape[2:]))
            if str(tap) in self.places:
                pooled += self.places[str(tap)](map_)
        return pooled

    def maps(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The feature map [N, C, h, w] at each tap, in order; x: float32 [N, H, W, 3], 0..255."""
        x = x.permute(0, 3, 1, 2) - NEUTRAL  # of NHWC this is channels_last, without a copy
        if not self.folded:
            x = F.pad(x, self.border)
            x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index in self.design.taps:
                yield index, x

    @torch.no_grad()
    def fold_normalisation(self) -> None:
        """See `Scorer.fold_normalisation`: the first convolution takes pixels less `NEUTRAL`, and pads by itself."""
        if self.folded:
            return
        first = self._first_convolution()
        weight = first.weight.double() / self.get_buffer("std")
        bias = -(weight * self.get_buffer("mean")).sum((1, 2, 3))
        if first.bias is not None:
            bias += first.bias
        first.weight.copy_(weight)
        first.bias = nn.Parameter(bias.to(first.weight.dtype))
        first.padding, self.folded = self.border[::2][::-1], True

    def _first_convolution(self) -> nn.Conv2d:
        return next(module for module in self.layers.modules() if isinstance(module, nn.Conv2d))

    @torch.no_grad()
    def set_standardisation(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Make the head see 3 + (feature - mean) / std / 2, cut off at 0 and 6; both [F], in the order of `pool`."""
        parts = zip(self.standardise, mean.split(self.widths), std.split(self.widths), strict=True)
        for scale, centre, spread in parts:
            scale.get_parameter("weight").copy_((0.5 / spread).view(-1, 1, 1, 1))
            scale.get_parameter("bias").copy_(HEAD_CENTRE - 0.5 * centre / spread)

    @torch.no_grad()
    def centre_head(self, centred: bool) -> None:
        """Let the head see features around zero while it learns, which is faster, or as they ship; same logits."""
        if centred != self.centred:
            sign = 1 if centred else -1
            for layer in [self.score] if self.types is None else [self.score, self.types]:
                layer.bias.add_(sign * HEAD_CENTRE * layer.weight.sum(dim=1))
            self.centred = centred

    @torch.no_grad()
    def _tap_shapes(self) -> dict[int, tuple[int, int, int]]:
        """Shape (C, h, w) of the feature map at each tap; h and w mean something when the input's size is known."""
        was_training = self.layers.training
        self.layers.eval()
        height, width = self.design.input_size if self.design.place_taps else (64, 64)
        shapes = {tap: tuple(map_.shape[1:]) for tap, map_ in self.maps(torch.zeros(1, height, width, 3))}
        self.layers.train(was_training)
        return shapes  # type: ignore[return-value]


class Averaged(Scorer):
    """Several classifiers in one graph; their logits, brought to a common scale in training, are averaged."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.defect_types = members[0].defect_types
        if any(member.defect_types != self.defect_types for member in members):
            raise ValueError(f"members know different defect types: {[member.defect_types for member in members]}")

    def fold_normalisation(self) -> None:
        """See `Scorer.fold_normalisation`."""
        for member in self.members:
            assert isinstance(member, Classifier)
            member.fold_normalisation()

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
