"""The live card of training."""

import numpy as np

from inspection.model.examples import TrainingSet
from inspection.model.training import train
from inspection.settings import TrainingSettings
from inspection.train_path.reporting import watch_training


class Card:
    """Keeps what a person would have seen at each refresh."""

    def __init__(self) -> None:
        self.components: list[object] = []
        self.seen: list[list[str]] = []

    def clear(self) -> None:
        self.components.clear()

    def extend(self, components: list[object]) -> None:
        self.components += components

    def refresh(self) -> None:
        self.seen.append([str(getattr(each, "_text", type(each).__name__)) for each in self.components])


def test_card_is_drawn_anew_with_every_view_and_every_epoch() -> None:
    generator = np.random.default_rng(0)
    pixels, is_bad = generator.integers(100, 140, (16, 36, 36, 3)).astype(np.uint8), np.arange(16) % 2 == 1
    pixels[is_bad, 8:24, 8:24] = 20
    images = TrainingSet(pixels, is_bad, np.full(16, -1), [str(row) for row in range(16)])
    settings = TrainingSettings(
        backbone="squeezenet1_1", weights="none", views=1, epochs=3, patience=3, batch_size=8, learning_rate=1e-3
    )
    card = Card()
    train("both", images, settings, progress=watch_training(card))
    heads = [shown[0] for shown in card.seen]
    assert [head.rsplit("\n", 1)[1] for head in heads] == [
        "Reading what the backbone sees in each image: 16 of at most 32 images",
        "Reading what the backbone sees in each image: 32 of at most 32 images",
        "Fine-tuning: 1 of at most 3 epochs",
        "Fine-tuning: 2 of at most 3 epochs",
        "Fine-tuning: 3 of at most 3 epochs",
    ]
    assert ["Image" in shown for shown in card.seen] == [False, False, True, True, True]  # the curves
