"""Export of a model trained on real images: int8 keeps what the trained model knows."""

from pathlib import Path

import numpy as np
import pytest

from edge.contract import InputContract
from edge.preprocess import prepare_file
from inspection.export.agreement import auroc
from inspection.export.conversion import convert
from inspection.export.device import score_on_device
from inspection.export.parity import run_parity_gate, score_trained
from inspection.settings import ExportSettings, TrainingSettings

INPUT = InputContract(width=224, height=224)
MAX_LOSS = 0.005
# Any verdict of the gate is of interest, so its limits are as wide as they go.
SETTINGS = ExportSettings(max_auroc_loss=0.99, max_flip_rate=0.99, min_correlation=0.001, parity_images=400)


def load(data: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 224, 224, 3]; bool [N]: bad; bool [N]: for training."""
    if name == "cookies":
        files = sorted([*data.glob("cookies/training-images/*.jpg"), *data.glob("cookies/test-images/*.jpg")])
        is_bad = np.array(["anomaly" in path.name for path in files])
        training = np.array([path.parent.name == "training-images" for path in files])
    else:
        files = sorted(data.glob("aliens/*/*.png"))
        is_bad = np.array([path.parent.name == "anomaly" for path in files])
        training = np.random.default_rng(0).permutation(len(files)) < len(files) // 2
    pixels = np.concatenate([prepare_file(path.read_bytes(), INPUT, path.name).pixels for path in files])
    return pixels, is_bad, training


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cookies", "aliens"])
def test_int8_keeps_the_auroc_of_the_trained_model(
    name: str, real_data: Path, real_weights: Path, tmp_path: Path
) -> None:
    from inspection.model.examples import TrainingSet
    from inspection.model.training import train

    pixels, is_bad, training = load(real_data, name)
    groups = [str(index) for index in range(len(pixels))]
    examples = TrainingSet(
        pixels[training], is_bad[training], np.full(training.sum(), -1), [groups[i] for i in np.flatnonzero(training)]
    )
    trained = train("frozen", examples, TrainingSettings(weights=str(real_weights), recipe="frozen"), None, None)
    converted = convert(trained.model, INPUT, examples.pixels, tmp_path)
    gate = run_parity_gate(
        score_trained(trained.model, examples.pixels, SETTINGS, 0), converted, examples.is_bad, INPUT, SETTINGS, 0
    )
    print(f"{name}: {gate.float.summary()}\n{name}: {gate.int8.summary()}")
    assert gate.float.max_abs_difference < 0.01
    assert gate.float.flips == 0
    assert gate.int8.correlation >= 0.98
    assert gate.int8.auroc_loss <= MAX_LOSS
    # And on pictures that neither the model nor the quantiser has seen.
    unseen, labels = pixels[~training], is_bad[~training]
    scores = score_on_device(converted.int8_path, unseen, INPUT, SETTINGS).scores
    reference = trained.model.score_pixels(unseen)
    loss = auroc(reference, labels) - auroc(scores, labels)
    print(f"{name}: unseen AUROC trained {auroc(reference, labels):.4f}, int8 {auroc(scores, labels):.4f}")
    assert loss <= MAX_LOSS
    assert np.corrcoef(scores, reference)[0, 1] >= 0.98
