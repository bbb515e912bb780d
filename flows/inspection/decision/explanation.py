"""The operating point in plain English, for a quality engineer."""

from inspection.decision.bounds import Rate
from inspection.decision.promise import MOST_REVIEWED, MOVED_FOR, OperatingPointReport, Promise
from inspection.decision.rounding import percent


def explain(report: OperatingPointReport) -> str:
    """Markdown paragraphs: what happens to parts, what is promised, what is missing, what the promise leaves out."""
    paragraphs = [
        _describe_autonomy(report),
        _describe_thresholds(report),
        _describe_promise(report.escape, "Escapes", "bad", "pass", report.resolved_escape),
        _describe_promise(report.overkill, "False alarms", "good", "fail", report.resolved_overkill),
        _describe_review(report),
        _describe_errors(report),
        _describe_what_gave_way(report),
        "The promises hold for the kinds of defect, the lighting and the camera that the calibration images show, "
        "not for a kind of defect that they do not hold.",
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _describe_autonomy(report: OperatingPointReport) -> str:
    if report.autonomous:
        return ""
    return (
        f"**NOT AUTONOMOUS: this model would send {percent(report.review_rate)} of all parts to review, more than "
        f"{percent(MOST_REVIEWED)}. It sorts parts for people; it does not decide in their place.** "
        "Look first at the images that hold the thresholds, one wrong label can do this; then add training images, or "
        "let another limit give way with `priority`."
    )


def _describe_thresholds(report: OperatingPointReport) -> str:
    point = report.point
    if point.lower == point.upper:
        text = f"**Thresholds.** A part passes below the score {point.lower:.3f} and fails above it"
        return text + ("; a score equal to it goes to review." if report.has_band else ". Nothing goes to review.")
    return (
        f"**Thresholds.** A part passes below the score {point.lower:.3f}, fails above {point.upper:.3f}, "
        "and goes to review from the one to the other."
    )


def _describe_promise(promise: Promise, name: str, label: str, verdict: str, measured: Rate) -> str:
    trials = f"{label} parts" if promise.one_image_each else f"independent {label} groups"
    text = (
        f"**{name}.** With {percent(promise.confidence)} confidence at most {percent(promise.rate, 'up')} of {label} "
        f"parts {verdict} (limit: {percent(promise.limit)}). On average over such calibration sets it is at most "
        f"{percent(promise.expected_rate, 'up')}. Of the {measured.total} {label} calibration images, {measured.count} "
        f"{verdict}ed."
    )
    if not promise.one_image_each:
        text += " Images of one group are not independent, so each group counts once."
    if promise.kept:
        return text
    if promise.groups_missing:
        text += (
            f" **The limit is not proven: that takes {promise.groups_needed} {trials} in the calibration split, and "
            f"there are {promise.groups}, so {promise.groups_missing} are missing.**"
        )
    if promise.moved_for in ("errors", "outlets"):
        text += f" **The limit is not kept: {MOVED_FOR[promise.moved_for]}.**"
    elif promise.moved:
        text += f" **The limit gave way, so that fewer parts go to review: {name.lower()} come last in priority.**"
    return text


def _describe_review(report: OperatingPointReport) -> str:
    text = (
        f"**Review.** About {1000 * report.review_rate:.0f} of 1,000 parts go to review when "
        f"{percent(report.expected_defect_rate)} of them are bad (limit: {percent(report.max_review_rate)})."
    )
    action = report.point.review_action
    if action != "review":
        threshold = {"pass": "upper", "fail": "lower"}[action]
        text += (
            f" The settings {action} every part under review: the {threshold} threshold alone decides, and the "
            "promises are for what the line does there."
        )
    return text


def _describe_errors(report: OperatingPointReport) -> str:
    good, bad = report.calibration_rates["error_good"], report.calibration_rates["error_bad"]
    if good.count + bad.count == 0:
        return ""
    rejected = report.point.on_error == "reject"
    counted = "rejected, good ones count as false alarms" if rejected else "sent to review"
    return (
        f"**Errors.** The input guard refuses {good.count} of {good.total} good and {bad.count} of {bad.total} bad "
        f"calibration images: such parts are {counted}."
    )


def _describe_what_gave_way(report: OperatingPointReport) -> str:
    if not report.gave_way:
        return "All three limits of the settings are kept."
    lines = [
        f"- {lost.limit}: asked for at most {percent(lost.asked)}, got {percent(lost.got, 'up')}: {lost.why}."
        for lost in report.gave_way
    ]
    return "**Limits that are not kept:**\n\n" + "\n".join(lines)
