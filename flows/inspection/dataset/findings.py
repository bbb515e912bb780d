"""What the checks can find: every code, how grave it is, what it means and what to do.

`CODES` is the one source; docs/dataset-checks.md shows it as a table and a test keeps the two alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of finding."""

    severity: Severity
    title: str  # in plain words, for a heading
    meaning: str  # why it matters
    advice: str  # what to do


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset, or may be."""

    code: str  # a key of CODES
    severity: Severity  # errors stop the flow; warnings go to the report
    summary: str  # one sentence with the numbers of this set
    images: tuple[tuple[str, ...], ...] = ()  # groups of uris; those of a group are shown side by side
    figures: dict[str, float | str] = field(default_factory=dict)  # the evidence, by name
    advice: str = ""  # what to do

    @property
    def title(self) -> str:
        """The kind of finding in plain words."""
        return CODES[self.code].title

    @property
    def uris(self) -> tuple[str, ...]:
        """Every image that is named, each once."""
        return tuple(dict.fromkeys(uri for group in self.images for uri in group))


def make_finding(
    code: str,
    summary: str,
    images: Iterable[Iterable[str]] = (),
    figures: dict[str, float | str] | None = None,
    advice: str = "",
) -> Finding:
    """A finding of this code, with its severity and advice from the table.

    Args:
        code: a key of `CODES`.
        summary: one sentence with the numbers of this set.
        images: groups of uris.
        figures: the evidence.
        advice: if another than the table's fits better.
    """
    known = CODES[code]
    groups = tuple(tuple(group) for group in images)
    return Finding(code, known.severity, summary, groups, figures or {}, advice or known.advice)


CODES: dict[str, Code] = {
    # What cannot be learnt from at all
    "unreadable-file": Code(
        "error",
        "Files that cannot be read",
        "The file or object is there but the system refuses to give it.",
        "Correct the permissions or fetch the file again.",
    ),
    "empty-file": Code(
        "error",
        "Empty files",
        "The file has no content: a copy or an upload broke off.",
        "Copy the picture again or remove the file.",
    ),
    "not-a-picture": Code(
        "error",
        "Files that are no picture of a known kind",
        "The name says picture, the content does not: JPEG, PNG, BMP and TIFF are read.",
        "Convert the picture to PNG or JPEG, or remove the file.",
    ),
    "animation": Code(
        "error",
        "Animations",
        "A GIF holds several pictures, so it is not clear which of them the label belongs to.",
        "Save the picture that is meant as PNG.",
    ),
    "too-large": Code(
        "error",
        "Pictures too large to open",
        "So many pixels that decoding could use up the memory; refused before any is decoded.",
        "Crop or shrink the picture at its source.",
    ),
    "damaged": Code(
        "error",
        "Damaged or truncated pictures",
        "The file begins like a picture but cannot be decoded to its end.",
        "Take or copy the picture again, or leave it out with --drop-bad-images.",
    ),
    "outside-region": Code(
        "error",
        "Pictures that do not hold the region of interest",
        "[input] roi reaches beyond the picture's edge, so the model would not see the part.",
        "Correct [input] roi, or give pictures of the camera's full resolution.",
    ),
    "constant": Code(
        "error",
        "Pictures of a single tone",
        "Every pixel is the same: a covered lens, a lost frame, a failed export. Nothing can be seen on it.",
        "Take the picture again, or leave it out with --drop-bad-images.",
    ),
    # Labels and splits that contradict themselves
    "duplicate-labels-differ": Code(
        "error",
        "The same picture as good and as bad",
        "One of the labels is wrong, and the model cannot learn either.",
        "Keep the one with the right label.",
    ),
    "duplicate-across-splits": Code(
        "error",
        "The same picture in training and in validation",
        "What the model is judged on it has seen before: its figures would be too good.",
        "Remove it from one of the two folders.",
    ),
    "group-across-splits": Code(
        "error",
        "The same part or lot in training and in validation",
        "Pictures of one part look alike, so validation would not be independent.",
        "Move all pictures of the group to one side, or correct [data] group_pattern.",
    ),
    "one-class": Code(
        "error",
        "One class only",
        "Without pictures of both classes there is nothing to tell apart.",
        "Add pictures of the other class.",
    ),
    "too-few-images": Code(
        "error",
        "Too few pictures of a class",
        "Fewer than [data] min_images_per_class: training, thresholds and proof each need their own.",
        "Add pictures, or lower [data] min_images_per_class if you only try things out.",
    ),
    # Worth a look
    "nearly-black": Code(
        "warning",
        "Nearly black pictures",
        "Hardly any light: a lamp that was off, or an exposure far too short.",
        "Look at them; remove them unless your light makes every picture dark.",
    ),
    "extra-frames": Code(
        "warning",
        "Files with several pictures",
        "Only the first page or frame is read.",
        "Make sure that the first one is meant, or save it by itself.",
    ),
    "duplicate-images": Code(
        "warning",
        "The same picture several times",
        "It adds nothing and counts several times. All copies stay in one split.",
        "Keep one of each.",
    ),
    "duplicate-types-differ": Code(
        "warning",
        "The same picture with different defect types",
        "The part may have both defects, but a picture can bear only one type.",
        "Keep the one with the type that matters most.",
    ),
    "near-duplicates": Code(
        "warning",
        "The same capture several times, saved anew",
        "Re-encoded, resized or cropped copies of one capture. On both sides of a split they make figures too good.",
        "Keep one of each, or keep them in one split with --group-near-duplicates.",
    ),
    "near-duplicates-across-splits": Code(
        "warning",
        "Copies of one capture in training and in validation",
        "What the model is judged on it has seen before in another file: its figures would be too good.",
        "Look at the pairs and remove one of each, or keep them in one split with --group-near-duplicates.",
    ),
    "near-duplicate-labels-differ": Code(
        "warning",
        "Copies of one capture as good and as bad",
        "The pictures show the same capture, so one of the labels is probably wrong.",
        "Look at the pairs and keep the one with the right label.",
    ),
    "few-images": Code(
        "warning",
        "Too few parts of a class for the promise you ask for",
        "The limit on escapes or overkill is proven on independent parts of the calibration split; with fewer of them, "
        "only a looser limit can be promised.",
        "Add pictures of further parts, or accept the looser limit that the decision card will state.",
    ),
    "few-of-defect-type": Code(
        "warning",
        "Too few pictures of a defect type",
        "The model may miss it, and nothing can be said about how often.",
        "Add pictures of this defect, or join it with a similar one.",
    ),
    "mixed-sizes": Code(
        "warning",
        "Pictures of different sizes",
        "Several cameras, crops or exports are mixed: the same defect has another size in each.",
        "Make sure that the line will deliver this mixture; else keep one size.",
    ),
    "mixed-aspect-ratios": Code(
        "warning",
        "Pictures of different aspect ratios",
        'With [input] resize = "squash" the same part is distorted differently in each.',
        'Crop them alike, set [input] roi, or use resize = "letterbox".',
    ),
    "mixed-modes": Code(
        "warning",
        "Grey and colour, or 8 and 16 bits, mixed",
        "Several cameras or exports are mixed, and the model may learn which is which.",
        "Save all pictures the way that the line's camera will deliver them.",
    ),
    "overcompressed": Code(
        "warning",
        "Strongly compressed JPEGs",
        "Compression wipes out fine scratches and draws blocks that look like texture.",
        "Save with quality 90 or more, or as PNG, at the camera.",
    ),
    "shortcut": Code(
        "warning",
        "The label can be told without looking at the part",
        "A model takes the easiest way: it would learn this instead of the defect, look excellent here and fail on the "
        "line.",
        "Photograph and save good and bad parts the same way, mixed, with the line's camera.",
    ),
    "doubtful-label": Code(
        "warning",
        "Labels that the most similar pictures contradict",
        "The nearest neighbours of these pictures, as a network sees them, nearly all bear the other label.",
        "Look at each beside its neighbours and correct the label if it is wrong.",
    ),
    # Masks and boxes
    "mask-unreadable": Code(
        "warning",
        "Masks that are missing or cannot be read",
        "Where the defect is will not be shown, and cannot be learnt later.",
        "Add or replace the mask.",
    ),
    "mask-size": Code(
        "warning",
        "Masks of another size than their picture",
        "The mask belongs to another picture, or one of the two was resized or turned.",
        "Export mask and picture at the same size.",
    ),
    "mask-empty": Code(
        "warning",
        "Bad pictures with an empty mask",
        "The picture is labelled bad but nothing is marked on it: label or mask is wrong.",
        "Mark the defect, or correct the label.",
    ),
    "mask-on-good": Code(
        "warning",
        "Good pictures with something marked",
        "The picture is labelled good but a defect is marked on it: label or mark is wrong.",
        "Remove the mark, or correct the label.",
    ),
    "box-outside": Code(
        "warning",
        "Boxes that reach beyond their picture",
        "The box belongs to another picture or size, or its columns are in another order.",
        "Correct the boxes; they are left, top, width, height in px of the upright picture.",
    ),
}
