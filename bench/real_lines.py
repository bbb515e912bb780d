"""The whole flow with its defaults on real parts: AUROC on the holdout after int8, with weights and without.

    INSPECTION_REAL_DATA=… INSPECTION_WEIGHTS=… python bench/real_lines.py [cookies] [aliens] [--weights none]

Cookies keep their shipped test images as the holdout. Aliens come without a split: the line's name seeds the
division, so five names are five splits. Every run is `flows/train_flow.py` as a person starts it.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inspection.registry.opening import open_registry
from inspection.settings import load_settings

FLOW = Path(__file__).parents[1] / "flows" / "train_flow.py"
LINE = """
[line]
name = "{name}"
storage = "{storage}"
[data]
source = "{source}"
[training]
weights = "{weights}"
recipe = "{recipe}"
"""
LAYOUTS = {
    "cookies": {
        "train/good": "training-images/normal-*.jpg",
        "train/bad": "training-images/anomaly-*.jpg",
        "validation/good": "test-images/*normal-*.jpg",
        "validation/bad": "test-images/*anomaly-*.jpg",
    },
    "aliens": {"good": "normal/*.png", "cut": "anomaly/*.png"},
}


def lay_out(part: str, data: Path, folder: Path) -> Path:
    """Copy a part's pictures into folders named by their labels."""
    for label, pattern in LAYOUTS[part].items():
        (folder / label).mkdir(parents=True)
        for path in sorted((data / part).glob(pattern)):
            shutil.copy(path, folder / label / path.name)
    return folder


def run_line(name: str, source: Path, weights: str, recipe: str, work: Path) -> dict:
    """Run the flow on one line and return the registered figures."""
    folder = work / name
    folder.mkdir()
    line = folder / "line.toml"
    line.write_text(LINE.format(name=name, storage=folder / "store", source=source, weights=weights, recipe=recipe))
    environment = {**os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder)}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(FLOW), "--config", "line", str(line), "run"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        sys.exit(f"{name}: the flow failed\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    (version,) = open_registry(load_settings(line)).list(name)
    figures = {**version.metrics, "recipe": version.tags["recipe"], "artifact": version.tags["artifact"]}
    auroc = figures["auroc"]
    print(
        f"{name:<10} AUROC {auroc['value']:.4f} [{auroc['low']:.3f}, {auroc['high']:.3f}]  recipe {figures['recipe']}, "
        f"{figures['artifact']}, agreement {figures['agreement']:.2%}, with its JPEG {figures['jpeg_agreement']:.1%}, "
        f"{seconds:.0f} s",
        flush=True,
    )
    return figures


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], metavar="PART", help="cookies, aliens; both by default")
    parser.add_argument("--weights", default="", help="none, or a state dict; default: the file in INSPECTION_WEIGHTS")
    parser.add_argument("--recipe", default="auto", help="as in the settings; default: auto")
    parser.add_argument("--splits", type=int, default=5, help="of aliens")
    arguments = parser.parse_args()
    if "INSPECTION_REAL_DATA" not in os.environ or "INSPECTION_WEIGHTS" not in os.environ:
        print("skipped: INSPECTION_REAL_DATA and INSPECTION_WEIGHTS are not set")
        return
    data = Path(os.environ["INSPECTION_REAL_DATA"])
    weights = arguments.weights or str(next(Path(os.environ["INSPECTION_WEIGHTS"]).glob("mobilenet_v2*.pth")))
    with tempfile.TemporaryDirectory(prefix="lineside-real-") as scratch:
        work = Path(scratch)
        for part in arguments.parts or list(LAYOUTS):
            source = lay_out(part, data, work / f"{part}-images")
            count = arguments.splits if part == "aliens" else 1
            found = [run_line(f"{part}-{index}", source, weights, arguments.recipe, work) for index in range(count)]
            values = [figures["auroc"]["value"] for figures in found]
            print(f"{part}: mean AUROC {statistics.mean(values):.4f}, lowest {min(values):.4f}, of {count}", flush=True)


if __name__ == "__main__":
    main()
