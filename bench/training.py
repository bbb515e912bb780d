"""Time to the same accuracy against the common recipe, and whether our loader starves the device.

    python bench/training.py [--weights FILE|none] [--images 240] [--size 224] [--repeats 3]

Peer: ResNet18 from random weights, Adam 1e-3, torchvision's ImageFolder decoding every epoch, ten epochs. Both learn
from the same JPEGs of the built-in sample and are judged on the same holdout. Ours counts decoding, too. The second
part feeds our fine-tuning loop from a memory map on disk, and the same model with tensors that lie on the device
already; the runs alternate.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from edge.contract import InputContract
from edge.preprocess import prepare_file
from inspection.model.augmentation import augment
from inspection.model.backbones import ARCHITECTURES, load_backbone
from inspection.model.classifier import Classifier, Design
from inspection.model.examples import TrainingSet
from inspection.model.finetune import autocast, batch_loss, class_weights, train_epoch, train_mode
from inspection.model.training import train
from inspection.sample import make_sample
from inspection.settings import AugmentationSettings, TrainingSettings

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PEER_EPOCHS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="none", help="file with mobilenet_v2 weights, or none (default)")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--repeats", type=int, default=3, help="of the throughput runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = _lay_out(make_sample(folder / "sample", arguments.images, 7), folder)
        _time_to_accuracy(split, arguments.weights, arguments.size)
        _throughput(split["train"], folder, arguments)


def _lay_out(sample: Path, folder: Path) -> dict[str, list[tuple[Path, bool]]]:
    """Divide the sample into train and holdout, as ImageFolder wants it; every fourth part is held out."""
    split: dict[str, list[tuple[Path, bool]]] = {"train": [], "holdout": []}
    kinds = sorted(path for path in sample.iterdir() if path.is_dir() and path.name != "masks")
    for kind in kinds:
        for number, picture in enumerate(sorted(kind.glob("*.jpg"))):
            part = "holdout" if number % 4 == 0 else "train"
            bad = kind.name != "good"
            target = folder / part / ("bad" if bad else "good") / f"{kind.name}-{picture.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(picture)
            split[part].append((target, bad))
    return split


def _decode(part: list[tuple[Path, bool]], size: int) -> tuple[np.ndarray, np.ndarray]:
    contract = InputContract(width=size, height=size)
    pixels = np.concatenate([prepare_file(path.read_bytes(), contract, str(path)).pixels for path, _ in part])
    return pixels, np.array([bad for _, bad in part])


def _training_set(pixels: np.ndarray, is_bad: np.ndarray) -> TrainingSet:
    return TrainingSet(pixels, is_bad, np.full(len(is_bad), -1), [str(row) for row in range(len(is_bad))])


def _time_to_accuracy(split: dict[str, list[tuple[Path, bool]]], weights: str, size: int) -> None:
    holdout, holdout_bad = _decode(split["holdout"], size)
    curve = _peer(split, holdout, holdout_bad, size)
    still = AugmentationSettings(
        horizontal_flip=False, vertical_flip=False, rotation_deg=2.0, scale=0.01, shift=0.01, brightness=0.04,
        contrast=0.04, noise=1.0,
    )  # fmt: skip
    backbone = "mobilenet_v2" if weights != "none" else "squeezenet1_1"
    settings = TrainingSettings(
        backbone=backbone, weights=weights, recipe="frozen", views=1, fixed_pose=True, augmentation=still
    )
    started = time.perf_counter()
    trained = train("frozen", _training_set(*_decode(split["train"], size)), settings)
    ours_s = time.perf_counter() - started
    ours = float(roc_auc_score(holdout_bad, trained.model.score_pixels(holdout)))
    best = max(value for _, value in curve)
    reached = next((seconds for seconds, value in curve if value >= ours), None)
    peer_s = reached if reached is not None else curve[-1][0]
    sign = "" if reached is not None else "more than "
    print(
        f"ours (frozen {backbone}, {'random' if weights == 'none' else 'pretrained'} weights): "
        f"{ours:.3f} in {ours_s:.1f} s"
    )
    print(f"peer (ResNet18, Adam 1e-3, {PEER_EPOCHS} epochs): best {best:.3f} in {curve[-1][0]:.1f} s")
    print(f"time to the same holdout AUROC: ratio {sign}{peer_s / ours_s:.1f} (want >= 5)")


def _peer(
    split: dict[str, list[tuple[Path, bool]]], holdout: np.ndarray, holdout_bad: np.ndarray, size: int
) -> list[tuple[float, float]]:
    """The common recipe; seconds of training and holdout AUROC after each epoch."""
    transforms = torchvision.transforms
    pipeline = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(split["train"][0][0].parents[1]), pipeline)
    torch.manual_seed(0)
    loader = DataLoader(dataset, batch_size=32, shuffle=True)
    model = torchvision.models.resnet18(weights=None, num_classes=2).to(DEVICE)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    mean = torch.tensor((0.485, 0.456, 0.406), device=DEVICE).view(1, 3, 1, 1) * 255
    std = torch.tensor((0.229, 0.224, 0.225), device=DEVICE).view(1, 3, 1, 1) * 255
    seconds, curve = 0.0, []
    for _ in range(PEER_EPOCHS):
        started = time.perf_counter()
        model.train()
        for images, labels in loader:
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
            optimiser.step()
        seconds += time.perf_counter() - started
        model.eval()
        with torch.inference_mode():
            batches = [torch.from_numpy(holdout[start : start + 32]) for start in range(0, len(holdout), 32)]
            logits = [model((batch.to(DEVICE).permute(0, 3, 1, 2) - mean) / std).cpu() for batch in batches]
        scores = torch.cat(logits).diff(dim=1)[:, 0].numpy()
        if dataset.classes != ["bad", "good"]:
            raise SystemExit(f"want the classes bad and good, found {dataset.classes}")
        curve.append((seconds, float(roc_auc_score(holdout_bad, -scores))))
    return curve


def _throughput(part: list[tuple[Path, bool]], folder: Path, arguments: argparse.Namespace) -> None:
    """Images per second of our loop from a memory map, and of the same steps with tensors on the device."""
    pixels, is_bad = _decode(part[:96], arguments.size)
    np.save(folder / "pixels.npy", pixels)
    learned = _training_set(np.load(folder / "pixels.npy", mmap_mode="r"), is_bad)
    settings = TrainingSettings(weights=arguments.weights, batch_size=16)
    resident = torch.from_numpy(pixels).to(DEVICE).float()
    ours, fed = [], []
    for repeat in range(arguments.repeats + 1):
        rates = {}
        for run in (_run_ours, _run_fed) if repeat % 2 else (_run_fed, _run_ours):  # neither always comes first
            rates[run] = run(_model(arguments.weights), learned, resident, settings)
        if repeat:  # the first round warms up
            ours.append(rates[_run_ours])
            fed.append(rates[_run_fed])
    ratio = float(np.median(np.array(ours) / np.array(fed)))
    print(f"fine-tuning mobilenet_v2 on {DEVICE}: ours {np.median(ours):.1f} images/s, fed from the device "
          f"{np.median(fed):.1f} images/s, ratio {ratio:.2f} (want >= 0.9)")  # fmt: skip


def _model(weights: str) -> Classifier:
    design = Design("mobilenet_v2", ARCHITECTURES["mobilenet_v2"].taps[-1:], ("mean",))
    model = Classifier(design, load_backbone("mobilenet_v2", weights, 0))
    model.to(DEVICE).to(memory_format=torch.channels_last)
    return model


def _optimiser(model: Classifier) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)


def _run_ours(model: Classifier, learned: TrainingSet, resident: torch.Tensor, settings: TrainingSettings) -> float:
    optimiser, schedule = _optimiser(model)
    started = time.perf_counter()
    _, seen = train_epoch(model, optimiser, schedule, learned, settings, DEVICE, 1, float("inf"))
    return seen / (time.perf_counter() - started)


def _run_fed(model: Classifier, learned: TrainingSet, resident: torch.Tensor, settings: TrainingSettings) -> float:
    """The same augmentation and steps; images are float tensors on the device, in order, without a loader."""
    optimiser, schedule = _optimiser(model)
    generator = torch.Generator(DEVICE).manual_seed(0)
    weights, none = class_weights(learned.is_bad), np.full(len(learned), -1)
    started = time.perf_counter()
    train_mode(model)
    total = torch.zeros((), device=DEVICE)
    for start in range(0, len(resident), settings.batch_size):
        rows = slice(start, start + settings.batch_size)
        images = augment(resident[rows], settings.augmentation, generator)
        with autocast(DEVICE):
            output = model(images)
        loss = batch_loss(output, learned.is_bad[rows], weights[rows], none[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        total += loss.detach()
    float(total)  # waits for the device
    return len(resident) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
