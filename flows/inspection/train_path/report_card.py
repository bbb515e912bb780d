"""Reads the card that a finished step of a run has made, to keep it with the model."""

import logging

log = logging.getLogger(__name__)


def read_card(step: str, card: str) -> bytes | None:
    """HTML of a step's card.

    Args:
        step: pathspec, such as `TrainFlow/17/evaluate`.
        card: its id.

    Returns:
        None when it cannot be had: a model without its card is a model all the same.
    """
    from metaflow import Step
    from metaflow.cards import get_cards
    from metaflow.exception import MetaflowException

    try:
        html: str = get_cards(Step(step).task, id=card)[0].get()
    except (MetaflowException, IndexError) as error:
        log.warning("event=card_not_kept step=%s card=%s reason=%r", step, card, str(error))
        return None
    return html.encode()
