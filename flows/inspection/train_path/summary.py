"""The last words of a run: what was made, what can be promised of it, and what to do next."""

from inspection.decision.bounds import Rate
from inspection.decision.evaluation import contradicts_promise
from inspection.decision.promise import MOVED_FOR, Promise
from inspection.decision.ranking import Estimate
from inspection.decision.rounding import show_rounded
from inspection.train_path.run import TrainRun


def summarise(run: TrainRun, run_id: str) -> str:
    """The text that the flow ends with."""
    released, decision, evaluation, shipped = run.release, run.decision, run.evaluation, run.exported.shipped
    line, rates = evaluation.resolved, evaluation.rates  # what the line does, and the verdicts that it follows
    report, expected, point = decision.report, evaluation.per_thousand, decision.report.point
    reviewed = "" if point.review_action == "review" else f"; the line makes each a {point.review_action}"
    kind, device = run.exported.kind, decision.device
    table = [
        ("model package", f"line {released.line}, version {released.version} (pending), {kind}"),
        ("archive", f"{released.storage}/{released.archive}"),
        ("figures", f"{released.storage}/{released.metrics}"),
        ("holdout", f"{evaluation.good} good and {evaluation.bad} bad images, AUROC {_figure(evaluation.auroc)}"),
        ("escape", f"{_rate(line.escape)} of bad parts pass"),
        ("overkill", f"{_rate(line.overkill)} of good parts fail"),
        ("review", f"{_rate(rates.review_bad)} of bad parts, {_rate(rates.review_good)} of good parts{reviewed}"),
        (
            "error",
            f"{_rate(rates.error_bad)} of bad parts, {_rate(rates.error_good)} of good parts"
            f" (on_error: {point.on_error})",
        ),
        (
            "expected",
            f"{expected['reviews'].value:.0f} reviews per 1,000 parts, "
            f"{evaluation.expected_defect_rate:.1%} of them bad",
        ),
        ("promised", _promise("bad", "pass", report.escape)),
        ("promised", _promise("good", "fail", report.overkill)),
        (
            "agreement",
            f"{kind} decides as the trained model on {1 - shipped.flip_rate:.2%} of {shipped.images} images of "
            f"{shipped.groups} parts (on further parts like these at least "
            f"{show_rounded(100 * (1 - shipped.flip_rate_upper), 2, 'down')}%, "
            f"with {shipped.confidence:.0%} confidence)",
        ),
        (
            "latency",
            f"{device['p50_ms']:.1f} ms, p99 {device['p99_ms']:.1f} ms an image, {device['rss_bytes'] / 1e6:.0f} MB "
            f"({device['runtime']}, one thread, on this machine)",
        ),
    ]
    if contradicts_promise(evaluation, report):
        table.append(("ATTENTION", "the holdout contradicts the promise: it shows more mistakes than chance explains"))
    if not report.autonomous:
        table.append(("ATTENTION", "NOT AUTONOMOUS: more than half of the parts would go to review, see the report"))
    table += [
        ("not kept", f"{one.limit}: asked {one.asked:.1%}, got {show_rounded(100 * one.got, 1, 'up')}%")
        for one in report.gave_way
    ]
    if run.larger_input is not None and run.larger_input.warning:
        table.append(("ATTENTION", run.larger_input.warning))
    if not decision.jpeg.passed:
        table.append(
            ("ATTENTION", f"a raw frame and its JPEG get the same verdict on {decision.jpeg.agreement:.1%} only")
        )
    version = f"{released.line} {released.version}"
    table += [
        ("report", f"python flows/train_flow.py card view {run_id}/evaluate"),
        ("next", f"lineside registry show {version}"),
        ("next", f'lineside registry approve {version} --by "$USER" --why "…"'),
    ]
    lines = [f"{name:<14}| {text}" for name, text in table]  # Metaflow strips spaces before a line, not within
    return "\n".join(lines)


def _figure(estimate: Estimate) -> str:
    """A figure with its 95 % interval."""
    return f"{estimate.value:.3f} [{show_rounded(estimate.low, 3, 'down')}, {show_rounded(estimate.high, 3, 'up')}]"


def _rate(rate: Rate) -> str:
    """A rate with its 95 % interval."""
    return f"{rate.rate:.1%} [{show_rounded(100 * rate.low, 1, 'down')}%, {show_rounded(100 * rate.high, 1, 'up')}%]"


def _promise(label: str, verdict: str, promise: Promise) -> str:
    text = (
        f"at most {show_rounded(100 * promise.rate, 1, 'up')}% of {label} parts {verdict}, "
        f"with {promise.confidence:.0%} confidence"
    )
    if promise.kept:
        return text
    if promise.moved:
        return f"{text}; {promise.limit:.1%} were asked for: {MOVED_FOR[promise.moved_for]}"
    unit = "parts" if promise.one_image_each else "groups"
    return f"{text}; {promise.groups_missing} more independent {label} {unit} needed for {promise.limit:.1%}"
