"""The whole flow on real parts with real weights, in a short setting; `bench/real_lines.py` has the long one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_cookies_are_told_apart_after_the_whole_flow(real_data: Path, real_weights: Path) -> None:
    bench = Path(__file__).parents[1] / "bench" / "real_lines.py"
    command = [sys.executable, str(bench), "cookies", "--recipe", "frozen"]
    environment = {
        **os.environ,
        "INSPECTION_REAL_DATA": str(real_data),
        "INSPECTION_WEIGHTS": str(real_weights.parent),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"cookies: mean AUROC ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) >= 0.99
