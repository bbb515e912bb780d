"""Backbones by name: torchvision's own networks, cut at the layers whose features are pooled.

A backbone is a list of layers. Taps are indices into that list: after such a layer the feature map is pooled. For
the inverted-residual networks the taps lie at projection outputs, the last of each resolution.
"""

import logging
import pickle
import urllib.error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import nn

from inspection.errors import TrainingError
from inspection.settings import TrainingSettings

log = logging.getLogger(__name__)

NO_DOWNLOAD = ("", "none", "imagenet")
CLASSIFIER_KEYS = ("classifier.", "fc.")  # of torchvision's networks; the thousand ImageNet classes are not used


@dataclass(frozen=True)
class Architecture:
    """Where a torchvision network is cut.

    Deep layers with random weights only mix what the first ones tell, so without pretrained weights the taps are low.
    """

    taps: tuple[int, ...]  # indices of layers after which features are pooled
    place_taps: tuple[int, ...]  # those of them whose maps are fine enough to compare place by place
    untrained_taps: tuple[int, ...]  # instead of both, for random weights
    layers: tuple[str, ...] = ()  # attributes that make up the backbone, in order; () = the parts of `features`


ARCHITECTURES: Mapping[str, Architecture] = {
    "mobilenet_v2": Architecture(taps=(1, 3, 6, 10, 13, 16, 17, 18), place_taps=(3, 6, 13), untrained_taps=(0, 1, 3)),
    "mobilenet_v3_small": Architecture(taps=(0, 1, 3, 6, 8, 11, 12), place_taps=(1, 3, 8), untrained_taps=(0, 1)),
    "resnet18": Architecture(
        taps=(2, 4, 5, 6, 7),
        place_taps=(4, 5, 6),
        untrained_taps=(2, 4),
        layers=("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    ),
    "efficientnet_b0": Architecture(taps=(1, 2, 3, 4, 5, 6, 7, 8), place_taps=(2, 3, 5), untrained_taps=(0, 1, 2)),
    "squeezenet1_1": Architecture(taps=(1, 4, 7, 9, 10, 11, 12), place_taps=(4, 7, 10), untrained_taps=(1, 3)),
}


def build_layers(name: str) -> nn.ModuleList:
    """Make a backbone with random weights (torch's global generator decides them).

    Raises:
        TrainingError: no backbone of that name is supported.
    """
    return _cut(name, _network(name))


def load_backbone(name: str, weights: str, seed: int) -> nn.ModuleList:
    """Make a backbone and fill it.

    Args:
        name: a key of `ARCHITECTURES`.
        weights: "imagenet", a file with a state dict, or "none".
        seed: of the random weights when there are no others.

    Raises:
        TrainingError: unknown backbone; no network for the download; a missing or broken file, or one of another
            architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(name)
    if weights == "none":
        log.warning(
            "event=random_weights backbone=%s meaning='no pretrained weights: expect clearly lower accuracy on real "
            'parts; set [training] weights to "imagenet" or to a file\'',
            name,
        )
    else:
        state = _download(name) if weights == "imagenet" else _read(Path(weights), name)
        _check_fits(state, network, name, weights)
        network.load_state_dict({key: state.get(key, own) for key, own in _own_state(network).items()}, strict=False)
    return _cut(name, network)


def check_weights(settings: TrainingSettings) -> None:
    """Make sure, before any work is done, that the weights are there and fit.

    The download of "imagenet" is kept in torch's own cache, so training does not fetch it again.

    Raises:
        TrainingError: see `load_backbone`.
    """
    load_backbone(settings.backbone, settings.weights, settings.seed)


def _network(name: str) -> nn.Module:
    if name not in ARCHITECTURES:
        raise TrainingError(f"[training] backbone: want one of {', '.join(ARCHITECTURES)}, found {name!r}")
    network: nn.Module = torchvision.models.get_model(name, weights=None)
    return network


def _cut(name: str, network: nn.Module) -> nn.ModuleList:
    layers = ARCHITECTURES[name].layers
    parts: Iterable[nn.Module] = (
        (getattr(network, layer) for layer in layers) if layers else network.get_submodule("features").children()
    )
    return nn.ModuleList(parts)


def _own_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """The network's parameters and statistics, without its ImageNet classifier."""
    return {key: value for key, value in network.state_dict().items() if not key.startswith(CLASSIFIER_KEYS)}


def _download(name: str) -> Mapping[str, torch.Tensor]:
    """Fetch torchvision's ImageNet weights; the file's name carries its hash, which is checked."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        state: Mapping[str, torch.Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise TrainingError(
            f'[training] weights = "imagenet": want {weights.url}, found no way to fetch it ({error}). Either give '
            "this machine access to it, or download that file elsewhere and set weights to its path; "
            'weights = "none" trains without, with clearly lower accuracy'
        ) from error
    return state


def _read(path: Path, name: str) -> Mapping[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot read the weights of {name} ({error.strerror or error}); set [training] weights to a file "
            f'of a {name} state dict, to "imagenet" or to "none"'
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{path}: want a state dict saved by torch.save, found a file that torch cannot read safely "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); save it again with "
            "torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise TrainingError(
            f"{path}: want a state dict (name to tensor) of {name}, found {type(state).__name__} that is not one; "
            "save it again with torch.save(model.state_dict(), path)"
        )
    return state


def _check_fits(state: Mapping[str, torch.Tensor], network: nn.Module, name: str, where: str) -> None:
    faults = []
    for key, own in _own_state(network).items():
        if key.endswith("num_batches_tracked"):  # a counter that older files lack and that inference never reads
            continue
        if key not in state:
            faults.append(f"{key}: want {tuple(own.shape)}, found nothing")
        elif state[key].shape != own.shape:
            faults.append(f"{key}: want {tuple(own.shape)}, found {tuple(state[key].shape)}")
    if faults:
        unused = [key for key in state if key not in network.state_dict()]
        hint = f"; the file has {', '.join(unused[:3])} instead" if unused else ""
        raise TrainingError(
            f"{where}: want weights of {name}, found another architecture ({len(faults)} tensors do not fit): "
            f"{'; '.join(faults[:3])}{hint}. Set [training] backbone to the one these weights belong to, or give others"
        )
    broken = [key for key in _own_state(network) if key in state and not torch.isfinite(state[key]).all()]
    if broken:
        raise TrainingError(
            f"{where}: want finite weights of {name}, found NaN or infinite ones in {len(broken)} tensors: "
            f"{', '.join(broken[:3])}; their training went wrong or the file was damaged: give other weights"
        )
