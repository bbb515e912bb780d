"""The device's command line: `python -m edge`."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge.errors import EdgeError
from edge.redaction import redact

if TYPE_CHECKING:
    from edge.judge import Judgement
    from edge.package import Package

_EPILOG = """\
examples:
  python -m edge --model PACKAGE --source folder:incoming --sink file:results.jsonl
  python -m edge --model PACKAGE --source v4l2:/dev/video0 --sink mqtt:broker.example:8883 --cert … --key … --ca …
  python -m edge --config inspector.toml
  python -m edge --model PACKAGE --self-test

sources: folder:PATH, v4l2:DEVICE, rtsp://HOST/PATH, http://HOST/PATH (MJPEG), trigger: (images by message)
sinks:   file:PATH, mqtt:HOST:PORT, greengrass, none

exit status: 0 done or told to stop; 1 a picture of --image is in error or the self-test failed; 2 could not start;
3 the Greengrass nucleus is gone, start this program again
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: done; 1: a picture is in error or the self-test failed; 2: could not start; 3: the nucleus is gone.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    task = options.image or options.self_test or options.benchmark
    if task and options.model is None:
        parser.error("--model: want the folder of a model package")
    if not task and not (options.source or options.config or options.sink == "greengrass"):
        parser.error("want something to do: --source, --config, --image, --self-test or --benchmark")
    try:
        if not task:
            gc.disable()  # until the program stands: a tenth of the start would go into looking through what stays
            from edge.starting import inspect

            return inspect(options)
        threads = options.threads or 1
        if options.benchmark:
            return _benchmark(options.model, threads, options.json)
        from edge.package import open_package

        package = open_package(options.model)
        if options.self_test:
            return _self_test(package, threads, options.json)
        return _judge(package, options.image, threads, options.json)
    except (EdgeError, OSError) as error:
        print(redact(f"edge: {error}"), file=sys.stderr)
        return 2
    finally:
        gc.enable()


def _self_test(package: Package, threads: int, as_json: bool) -> int:
    from edge.selftest import run_self_test

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
    from edge.benchmark import benchmark_model, benchmark_package, describe
    from edge.package import open_package

    benchmark = benchmark_model(model, threads) if model.is_file() else benchmark_package(open_package(model), threads)
    print(json.dumps(dataclasses.asdict(benchmark)) if as_json else describe(benchmark))
    return 0


def _judge(package: Package, images: list[Path], threads: int, as_json: bool) -> int:
    from edge.judge import failed, judge_file

    detector = package.open_detector(threads)
    errors = 0
    for image in images:
        try:
            data = image.read_bytes()
        except OSError as error:
            judgement = failed("source", f"{image}: cannot read: {error.strerror}")
        else:
            judgement = judge_file(data, package.contract, detector, str(image))
        errors += judgement.verdict == "error"
        if as_json:
            print(json.dumps({"image": str(image), **dataclasses.asdict(judgement)}), flush=True)
        else:
            print(_line(image, judgement), flush=True)
    return 1 if errors else 0


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


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"want NAME=VALUE such as review.audit_share=0.01, found {text!r}")
    return name, value


class _Parser(argparse.ArgumentParser):
    """Arguments may hold addresses with passwords, and argparse shows what it does not understand."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        super().error(redact(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m edge",
        description="Inspect parts with a model package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="PACKAGE",
        help="folder of a model package, or a link to it (--benchmark: a .tflite)",
    )
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--source", metavar="SOURCE", help="inspect parts from here")
    task.add_argument("--image", type=Path, nargs="+", metavar="FILE", help="judge these image files")
    task.add_argument("--self-test", action="store_true", help="score the package's golden images on this machine")
    task.add_argument("--benchmark", action="store_true", help="measure latency by stage, and memory")
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    parser.add_argument("--threads", type=_count, help="CPU threads for one picture (default 1)")
    run = parser.add_argument_group("inspecting")
    run.add_argument("--sink", metavar="SINK", help="where results go (default: a file in the state folder)")
    run.add_argument("--config", type=Path, metavar="FILE", help="settings, .toml or .json; flags beat it")
    run.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="any setting")
    run.add_argument(
        "--challenger", metavar="PACKAGE", help="link to a package that judges the same parts without deciding"
    )
    run.add_argument("--once", action="store_true", help="end when the folder holds no more files")
    run.add_argument("--quiet", action="store_true", help="no line for each part, no summary")
    run.add_argument("--state", metavar="FOLDER", help="the inspector's own files (default .lineside/inspector)")
    run.add_argument("--thing", help="name of this device (default: the host's name)")
    run.add_argument("--line", help="line that packages must be for (default: the package's)")
    run.add_argument("--workers", type=_count, help="pictures judged at the same time (default 1)")
    run.add_argument("--deadline-ms", type=float, metavar="MS", help="a part without a verdict by then is an error")
    run.add_argument("--upload", metavar="TO", help="where kept images go: a folder or s3://bucket/prefix")
    run.add_argument("--cert", metavar="FILE", help="MQTT: this device's certificate, PEM")
    run.add_argument("--key", metavar="FILE", help="MQTT: its private key, PEM")
    run.add_argument("--ca", metavar="FILE", help="MQTT: who signed the broker's certificate, PEM")
    run.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="default info")
    return parser


if __name__ == "__main__":
    # numpy's matrix library starts a thread per core, which here would only spin: the device multiplies no matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
