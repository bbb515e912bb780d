"""Keeps images of parts on which champion and challenger disagree, for a person to see who is right.

They are drawn apart from all other images: within one pair of verdicts every part has the same chance, which falls as
places are taken (`edge.selection.thinning`) and is written into the sidecar. They are no sample of the line's parts,
only of the disagreements: such an image has the reason `shadow`, and its sidecar requires a reader that knows it, so
that none gets into an estimate unawares. An image that is kept for another reason stays what it is; its sidecar tells
the challenger's judgement besides.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from typing import TYPE_CHECKING

from edge.selection import DAY_S, Window, thinning
from edge.sidecar import ImageFacts, Selection, ShadowVerdict, Sidecar, shadow_fields, sidecar_fields
from edge.spool.images import KeptImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.review import ReviewPolicy
    from edge.shadow.pairs import Pairs
    from edge.shadow.session import Job
    from edge.shadow.settings import ShadowSettings
    from edge.shadow.wire import Answer
    from edge.spool.spool import Spool

_log = logging.getLogger(__name__)


class Disagreements:
    """Draws and keeps the images; called from one thread at a time.

    Args:
        settings: how many.
        review: knows how a part's image is stored.
        spool: takes them.
        seed: makes the draws repeatable, for tests; by default nobody can foresee them.
        clock: seconds, of a clock that does not jump.
    """

    def __init__(
        self,
        settings: ShadowSettings,
        review: ReviewPolicy,
        spool: Spool,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._review = review
        self._spool = spool
        self._clock = clock
        self._days: dict[tuple[str, str, str], Window] = {}  # of the two packages and the pair of verdicts
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    def keep(self, pairs: Pairs, job: Job, answer: Answer, digest: str, version: str) -> None:
        """Keep the image of a part on which both disagree, or leave it.

        Args:
            pairs: counts the images of each pair of verdicts.
            job: the part, as the champion judged it.
            answer: the challenger's judgement.
            digest: of the challenger's contract.
            version: of the challenger.

        Raises:
            SpoolError: the spool is closed.
        """
        pair = f"{job.result.verdict}/{answer.verdict}"
        names = (job.champion, digest, pair)
        if names not in self._days:
            self._days = {known: window for known, window in self._days.items() if known[:2] == names[:2]}
        window = self._days.setdefault(names, Window(DAY_S))
        settings = self._settings
        probability = min(
            window.probability(self._clock(), settings.images_per_day),
            thinning(pairs.images(pair), settings.images_in_all),
        )
        if self._random.random() >= probability:
            return
        shadow = ShadowVerdict(
            package=version,
            digest=digest,
            champion=job.champion,
            verdict=answer.verdict,
            action=answer.action,
            probability=probability,
            score=answer.score,
            label=answer.label,
            error=answer.error,
        )
        if job.kept:
            self._spool.add_to_sidecar(job.result.sequence, {"shadow": shadow_fields(shadow)})
        else:
            image = self._image(job, shadow, f"{pair}/shadow")
            if image is None:
                return
            self._spool.add_image(job.result, image)
        window.take()
        pairs.count_image(job.champion, digest, pair)

    def _image(self, job: Job, shadow: ShadowVerdict, stratum: str) -> KeptImage | None:
        """The part's image with its sidecar; None when it has none that a person can look at."""
        picture = self._review.picture(job.part)
        if picture is None:
            return None
        data, suffix = picture
        facts = ImageFacts(hashlib.sha256(data).hexdigest(), suffix, as_captured=job.part.data is not None)
        selection = Selection("shadow", shadow.probability, 0.0, stratum)
        fields = sidecar_fields(Sidecar(job.result, facts, selection, shadow))
        return KeptImage(data, suffix, "shadow", shadow.probability, fields)
