"""The last words of a run: what was made, what can be promised of it, and what to do next."""

from inspection.decision.bounds import Rate
from inspection.decision.promise import Promise
from inspection.decision.ranking import Estimate
from inspection.train_path.run import TrainRun


def summarise(run: TrainRun, run_id: str) -> str:
    """The text that the flow ends with."""
    released, decision, evaluation, shipped = run.release, run.decision, run.evaluation, run.exported.shipped
    rates, report, review = evaluation.rates, decision.report, evaluation.per_thousand["reviews"]
    kind, device = run.exported.kind, decision.device
    table = [
        ("model package", f"line {released.line}, version {released.version} (pending), {kind}"),
        ("archive", f"{released.storage}/{released.archive}"),
        ("figures", f"{released.storage}/{released.metrics}"),
        ("holdout", f"{evaluation.good} good and {evaluation.bad} bad images, AUROC {_figure(evaluation.auroc)}"),
        ("escape", f"{_rate(rates.escape)} of bad parts pass"),
        ("overkill", f"{_rate(rates.overkill)} of good parts fail"),
        ("review", f"{_rate(rates.review_bad)} of bad parts, {_rate(rates.review_good)} of good parts"),
        ("expected", f"{review.value:.0f} reviews per 1,000 parts, {evaluation.expected_defect_rate:.1%} of them bad"),
        ("promised", _promise("bad parts pass", report.escape)),
        ("promised", _promise("good parts fail", report.overkill)),
        (
            "agreement",
            f"{kind} decides as the trained model on {1 - shipped.flip_rate:.2%} of {shipped.images} images "
            f"(at least {1 - shipped.flip_rate_upper:.2%} with {shipped.confidence:.0%} confidence)",
        ),
        (
            "latency",
            f"{device['p50_ms']:.1f} ms, p99 {device['p99_ms']:.1f} ms an image, {device['rss_bytes'] / 1e6:.0f} MB "
            f"({device['runtime']}, one thread, on this machine)",
        ),
    ]
    if not report.autonomous:
        table.append(("ATTENTION", "NOT AUTONOMOUS: more than half of the parts would go to review, see the report"))
    table += [("not kept", f"{one.limit}: asked {one.asked:.1%}, got {one.got:.1%}") for one in report.gave_way]
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
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _rate(rate: Rate) -> str:
    """A rate with its 95 % interval."""
    return f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}]"


def _promise(what: str, promise: Promise) -> str:
    missing = "" if promise.kept else f"; {promise.groups_missing} more such parts needed for {promise.limit:.1%}"
    return f"at most {promise.rate:.1%} of {what}, with {promise.confidence:.0%} confidence{missing}"
