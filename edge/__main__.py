"""The device's command line: `python -m edge`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.benchmark import benchmark_model, benchmark_package, describe
from edge.errors import EdgeError
from edge.judge import Judgement, Latency, judge_file
from edge.package import Package, open_package
from edge.selftest import run_self_test


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: done, every picture judged; 1: a picture is in error or the self-test failed; 2: could not start.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.benchmark:
            return _benchmark(options.model, options.threads, options.json)
        package = open_package(options.model)
        if options.self_test:
            return _self_test(package, options.threads, options.json)
        return _judge(package, options.image, options.threads, options.json)
    except (EdgeError, OSError) as error:
        print(f"edge: {error}", file=sys.stderr)
        return 2


def _self_test(package: Package, threads: int, as_json: bool) -> int:
    report = run_self_test(package, threads)
    if as_json:
        print(json.dumps(_finite(dataclasses.asdict(report))))
    else:
        for failure in report.failures:
            print(failure)
        print(
            f"self-test {'passed' if report.passed else 'FAILED'}: {report.images} golden images, largest difference "
            f"{report.largest_difference:.3g}, tolerance {report.tolerance:.3g}"
        )
    return 0 if report.passed else 1


def _benchmark(model: Path, threads: int, as_json: bool) -> int:
    benchmark = benchmark_model(model, threads) if model.is_file() else benchmark_package(open_package(model), threads)
    print(json.dumps(dataclasses.asdict(benchmark)) if as_json else describe(benchmark))
    return 0


def _judge(package: Package, images: list[Path], threads: int, as_json: bool) -> int:
    detector = package.open_detector(threads)
    failed = 0
    for image in images:
        try:
            data = image.read_bytes()
        except OSError as error:
            judgement = Judgement("error", None, None, None, f"{image}: cannot read: {error.strerror}", Latency())
        else:
            judgement = judge_file(data, package.contract, detector, str(image))
        failed += judgement.verdict == "error"
        if as_json:
            print(json.dumps({"image": str(image), **dataclasses.asdict(judgement)}), flush=True)
        else:
            print(_line(image, judgement), flush=True)
    return 1 if failed else 0


def _line(image: Path, judgement: Judgement) -> str:
    if judgement.score is None or judgement.probability is None:
        return f"{'error':<8}{judgement.reason}"
    label = f"  {judgement.label}" if judgement.label else ""
    return f"{judgement.verdict:<8}score {judgement.score:+8.3f}  p(bad) {judgement.probability:.3f}  {image}{label}"


def _finite(report: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinity."""
    return {name: None if value == float("inf") else value for name, value in report.items()}


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"want 1 or more, found {number}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge", description="Judge parts with a model package.")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="PACKAGE",
        help="folder of a model package (--benchmark: or .tflite)",
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--image", type=Path, nargs="+", metavar="FILE", help="judge these image files")
    task.add_argument("--self-test", action="store_true", help="score the package's golden images on this machine")
    task.add_argument("--benchmark", action="store_true", help="measure latency by stage, and memory")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    parser.add_argument("--threads", type=_count, default=1, help="CPU threads for one picture (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
