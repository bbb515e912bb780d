"""From part to verdict on a device: ours beside a common deployment and beside other runtimes with the same backbone.

    python bench/edge_latency.py [--rounds 20] [--parts 300]

The reference is what tutorials deploy: ResNet18 in PyTorch eager, Pillow decoding in full, torchvision's Resize,
ToTensor and Normalize. The peers are onnxruntime and OpenVINO with the model that ours runs (mobilenet_v2, 224x224,
exported from the same PyTorch module; int8 calibrated for each) behind our own preprocessing, so that they differ in
what runs the model. Each contestant is a process that stays loaded; they take turns in every round. Weights are random,
which does not change the time. On one thread, then on all cores for one picture.

Then the whole inspector: memory, cold start, parts per second, what its own code and syncing cost, what a challenger
beside the champion costs it; and the size of the device's environment. Makes .venv-peers from
bench/requirements-peers.txt when it is not there. The other environments are made by `make setup` and `make test`.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
DEVICE = ROOT / "bench" / "device"
PEERS = ROOT / ".venv-peers"
CASES = {"jpeg": "1600x1200 JPEG", "frame": "1600x1200 raw frame", "small": "224x224 raw frame"}
CONTESTANTS = {
    "reference": ".venv",
    "onnxruntime-float32": ".venv-peers",
    "onnxruntime-int8": ".venv-peers",
    "openvino-float32": ".venv-peers",
    "openvino-int8": ".venv-peers",
    "ours-float32": ".venv-edge",
    "ours-int8": ".venv-edge",
    "ours-float32 tflite-runtime": ".venv-edge-tflite",
    "ours-int8 tflite-runtime": ".venv-edge-tflite",
}
OURS = "ours-int8"  # what the claims are about
FASTER = {"jpeg": 5.5, "frame": 5.0, "small": 12.0}  # than the reference, one thread
OF_BARE = 1.1  # decode + resize + a bare invoke, at most
OVERHEAD = 0.05  # of the verdict path, at most
MEMORY, COLD_START = 1 / 5, 1 / 10  # of the reference, at most
ENVIRONMENT_MB = 200  # at most
PACE_PER_S = 5.0  # of a line, on one core
SHADOWED = 1.25  # median latency with a challenger beside, at most; its processor's caches are shared
EFFICIENCY = 0.85  # of cores x one core, at least
BATCH = 4  # pictures of one turn


class Claims:
    """What was wanted beside what was found."""

    def __init__(self) -> None:
        self.missed = 0

    def at_least(self, what: str, found: float, want: float) -> None:
        """A claim that a figure is high enough."""
        self._say(what, f"{found:.2f}", f">= {want:.2f}", found >= want)

    def at_most(self, what: str, found: float, want: float) -> None:
        """A claim that a figure is low enough."""
        self._say(what, f"{found:.3f}" if want < 10 else f"{found:.0f}", f"<= {want:.4g}", found <= want)

    def _say(self, what: str, found: str, want: str, met: bool) -> None:
        self.missed += not met
        print(f"{'ok    ' if met else 'MISSED'} {what}: {found}, want {want}", flush=True)


def python_of(environment: str) -> Path:
    return ROOT / environment / "bin" / "python"


def make_peers() -> None:
    """The peers' environment, which sees the main one's PyTorch."""
    if (PEERS / ".ready").exists():
        return
    print(f"set-up: {PEERS.name} (onnxruntime, OpenVINO) …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
    (site,) = (PEERS / "lib").glob("python*/site-packages")
    (main,) = (ROOT / ".venv" / "lib").glob("python*/site-packages")
    (site / "main.pth").write_text(f"{main}\n")
    requirements = ROOT / "bench" / "requirements-peers.txt"
    subprocess.run(
        [PEERS / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements], check=True
    )
    (PEERS / ".ready").touch()


def prepare(folder: Path) -> None:
    for environment, more in ((".venv", []), (".venv-peers", ["--onnx"])):
        command = [python_of(environment), DEVICE / "prepare.py", folder, *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"cannot prepare: {done.stdout[-2000:]}{done.stderr[-4000:]}")


class ContestantError(Exception):
    """A contestant ended before it was told to."""


class Contestant:
    """A loaded process."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        program = name.split()[0]
        self.name = name
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [python_of(CONTESTANTS[name]), DEVICE / "contestant.py", program, folder, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.ready = self._read()
        self.times: dict[str, dict[str, list[float]]] = {case: {} for case in CASES}

    def measure(self, case: str, count: int, counted: bool = True) -> None:
        """Have it measure so many pictures."""
        assert self._process.stdin is not None
        print(case, count, file=self._process.stdin, flush=True)
        for name, values in self._read().items():
            if counted:
                self.times[case].setdefault(name, []).extend(values)

    def median_ms(self, case: str, name: str = "whole") -> float:
        """Median of what was counted, in ms."""
        return statistics.median(self.times[case][name]) * 1e3

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)  # type: ignore[no-any-return]
        assert self._process.stderr is not None
        raise ContestantError(f"{self.name} ended: {self._process.stderr.read()[-3000:].strip()}")


@contextlib.contextmanager
def loaded(folder: Path, names: list[str], threads: int) -> Iterator[dict[str, Contestant]]:
    contestants: dict[str, Contestant] = {}
    try:
        for name in names:
            try:
                contestants[name] = Contestant(name, folder, threads)
            except ContestantError as error:
                if "tflite-runtime" not in name:
                    raise SystemExit(str(error)) from error
                print(f"{name} does not take part: {str(error).splitlines()[-1]}")  # random weights, int8
        yield contestants
    finally:
        for contestant in contestants.values():
            contestant.close()


def race(folder: Path, threads: int, rounds: int, claims: Claims) -> float:
    """Latency of all, in turns.

    Returns:
        resident memory of the reference, loaded, in bytes.
    """
    print(f"\n== {threads} thread{'s' * (threads > 1)} for one picture, median ms of {rounds * BATCH} (reference / it)")
    with loaded(folder, list(CONTESTANTS), threads) as contestants:
        for counted in [False, *[True] * rounds]:
            for case in CASES:
                for contestant in contestants.values():
                    contestant.measure(case, BATCH, counted)
        print(f"{'':<28}" + "".join(f"{text:>24}" for text in CASES.values()) + "   score")
        for name, contestant in contestants.items():
            cells = ""
            for case in CASES:
                mine = contestant.median_ms(case)
                cells += f"{mine:>15.2f} ({contestants['reference'].median_ms(case) / mine:5.1f}x)"
            print(f"{name:<28}{cells}{contestant.ready['score']:>8.2f}")
        print("processor time, which tells more than the clock while others use the machine:")
        for name, contestant in contestants.items():
            print(f"{name:<28}" + "".join(f"{contestant.median_ms(case, 'cpu'):>15.2f}{'':>9}" for case in CASES))
        if threads == 1:
            check_race(contestants, claims)
        return float(contestants["reference"].ready["rss_bytes"])


def check_race(contestants: dict[str, Contestant], claims: Claims) -> None:
    reference, ours = contestants["reference"], contestants[OURS]
    for case, text in CASES.items():
        claims.at_least(f"reference / ours, {text}", reference.median_ms(case) / ours.median_ms(case), FASTER[case])
    peers = [each for name, each in contestants.items() if name.startswith(("onnxruntime", "openvino"))]
    for case, text in CASES.items():
        fastest = min(peers, key=lambda each: each.median_ms(case))
        ratio = ours.median_ms(case) / fastest.median_ms(case)
        claims.at_most(f"ours / fastest peer ({fastest.name}), {text}", ratio, 1.0)
    for case in CASES:
        times = ours.times[case]
        bare = [first + second for first, second in zip(times["decode"], times["invoke"], strict=True)]
        ratio = ours.median_ms(case) / (statistics.median(bare) * 1e3)
        claims.at_most(f"ours / (decode + resize + bare invoke), {CASES[case]}", ratio, OF_BARE)


def sustained(folder: Path, parts: int, cores: int, rounds: int, claims: Claims) -> None:
    """Parts per second of the whole inspector, on one core and on all, with and without a disk."""
    print("\n== the whole inspector, JPEGs of 1600x1200 from memory")
    runs: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for used, store in ((1, "memory"), (1, "spool"), (cores, "spool")):
            arguments = [folder / "package-int8", folder / "pictures", parts, used, used, store]
            command = [python_of(".venv-edge"), DEVICE / "sustained.py", *arguments]
            done = subprocess.run([str(one) for one in command], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"the inspector failed: {done.stderr[-3000:]}")
            runs.setdefault((used, store), []).append(json.loads(done.stdout.splitlines()[-1]))

    def median_ms(key: tuple[int, str], value: str) -> float:
        return statistics.median(run[value] / (run["parts"] if value == "seconds" else 1) for run in runs[key]) * 1e3

    memory_ms, spool_ms = median_ms((1, "memory"), "seconds"), median_ms((1, "spool"), "seconds")
    bare_ms, all_ms = median_ms((1, "memory"), "bare_s"), median_ms((cores, "spool"), "seconds")
    print(
        f"one core: {1e3 / spool_ms:.1f} parts/s, {spool_ms:.2f} ms a part; {memory_ms:.2f} ms without the spool; ",
        end="",
    )
    print(f"decode + resize + bare invoke {bare_ms:.2f} ms")
    print(f"spooling and syncing cost {spool_ms - memory_ms:+.2f} ms a part ({(spool_ms - memory_ms) / spool_ms:+.1%})")
    print(f"{cores} cores: {1e3 / all_ms:.1f} parts/s")
    rest = 1 - bare_ms / memory_ms
    print(f"all that the program does for a part beside decode + resize + bare invoke: {rest:.1%} of its time")
    own = statistics.median(run["own"] for run in runs[1, "memory"])
    claims.at_most("own overhead on the verdict path", own, OVERHEAD)
    claims.at_least(f"parts/s on {cores} cores / ({cores} x one core)", spool_ms / all_ms / cores, EFFICIENCY)


def with_a_challenger(folder: Path, parts: int, rounds: int, claims: Claims) -> None:
    """Latency of the champion's verdicts at a line's pace, on one core, without and with a challenger of its size."""
    print(f"\n== a challenger beside the champion, {PACE_PER_S:.0f} parts/s on one core")
    challenger = folder / "challenger"
    shutil.copytree(folder / "package-int8", challenger)
    contract = json.loads((challenger / "contract.json").read_text())
    contract["operating_point"]["id"] = "challenger"
    (challenger / "contract.json").write_text(json.dumps(contract))
    runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for _ in range(rounds):
        for beside in runs:
            arguments = [folder / "package-int8", folder / "pictures", parts, PACE_PER_S, *[challenger] * beside]
            command = [python_of(".venv-edge"), DEVICE / "shadowed.py", *arguments]
            done = subprocess.run([str(one) for one in command], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"the inspector failed: {done.stderr[-3000:]}")
            runs[beside].append(json.loads(done.stdout.splitlines()[-1]))
    medians = []
    for beside, found in runs.items():
        times = sorted(value for run in found for value in run["total_ms"])
        medians.append(statistics.median(times))
        p99 = times[len(times) * 99 // 100]
        print(f"{'with' if beside else 'without'}: p50 {medians[-1]:.1f} ms, p99 {p99:.1f} ms")
    pairs = sum(sum(run["pairs"].values()) for run in runs[True])
    print(f"{pairs} parts judged by both, {sum(run['skipped'] for run in runs[True])} skipped")
    if len({run["verdicts"] for found in runs.values() for run in found}) != 1:
        raise SystemExit("the challenger changed the champion's verdicts")
    claims.at_most("median latency with / without a challenger", medians[1] / medians[0], SHADOWED)


def start_inspector(folder: Path, state: str, *more: str) -> subprocess.Popen[str]:
    command = [python_of(".venv-edge"), "-m", "edge", "--model", folder / "package-int8", "--thing", "bench", "--json"]
    command += ["--source", f"folder:{folder / 'pictures'}", "--state", state, *more]
    command += ["--set", "source.folder.after=keep", "--set", "source.folder.settle_ms=0"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}  # logs and the summary
    return subprocess.Popen([str(one) for one in command], **quiet, text=True, cwd=ROOT)  # type: ignore[call-overload]


def seconds_to_first_line(process: subprocess.Popen[str]) -> float:
    start = time.perf_counter()
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip()[:1] in "{0123456789":
            return time.perf_counter() - start
    raise SystemExit("ended without a verdict")


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def cold_start(folder: Path, rounds: int, claims: Claims) -> None:
    """Seconds from the start of the program to the first verdict: ours with self-test, spool and file sink."""
    print("\n== cold start, to the first verdict")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as on a device: the first start, not counted, writes the bytecode
    ours, reference = [], []
    for number in range(rounds + 1):  # the first fills the page cache
        process = start_inspector(folder, str(folder / f"cold-{number}"))
        our_s = seconds_to_first_line(process)
        end(process)
        command = [python_of(".venv"), DEVICE / "contestant.py", "reference", folder, "1", "--once"]
        process = subprocess.Popen([str(one) for one in command], stdout=subprocess.PIPE, text=True)
        their_s = seconds_to_first_line(process)
        process.communicate(timeout=60)
        if number:
            ours.append(our_s)
            reference.append(their_s)
    print(f"ours {statistics.median(ours):.2f} s, reference {statistics.median(reference):.2f} s")
    claims.at_most("cold start, ours / reference", statistics.median(ours) / statistics.median(reference), COLD_START)


def memory(folder: Path, reference_rss: float, claims: Claims) -> None:
    """Resident memory of the inspector with a real broker over TLS."""
    sys.path.insert(0, str(ROOT / "tests"))
    from mosquitto import MOSQUITTO, Mosquitto

    print("\n== memory")
    if MOSQUITTO is None:
        raise SystemExit("mosquitto is not installed: tests/install-debian-packages.sh")
    (folder / "broker").mkdir()
    with Mosquitto(folder / "broker") as broker:
        identity = broker.authority.sign("bench")
        files = ["--cert", identity.certificate, "--key", identity.key, "--ca", broker.authority.certificate]
        sink = ["--sink", f"mqtt:{broker.host}:{broker.port}", *(str(one) for one in files)]
        process = start_inspector(folder, str(folder / "memory"), *sink)
        assert process.stdout is not None
        for _ in range(len(list((folder / "pictures").iterdir()))):
            process.stdout.readline()
        time.sleep(3)
        connections = psutil.Process(process.pid).net_connections("tcp")
        if not any(one.status == psutil.CONN_ESTABLISHED for one in connections):
            raise SystemExit("the inspector is not connected to the broker")
        rss = psutil.Process(process.pid).memory_info().rss
        end(process)
    print(f"ours {rss / 1e6:.0f} MB (model loaded, MQTT over TLS connected), reference {reference_rss / 1e6:.0f} MB")
    claims.at_most("memory, ours / reference", rss / reference_rss, MEMORY)


def environment_size(folder: Path, claims: Claims) -> None:
    """Disk that edge/requirements.txt takes installed with --no-compile and used once, without pip and setuptools."""
    print("\n== the device's environment on disk")
    uv = ROOT / ".venv" / "bin" / "uv"
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        target = Path(temporary) / "environment"
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, target], check=True)
        requirements = ROOT / "edge" / "requirements.txt"
        install = [uv, "pip", "install", "-q", "--python", target / "bin" / "python"]
        subprocess.run([*install, "-r", requirements], check=True)
        self_test = [target / "bin" / "python", "-m", "edge", "--model", folder / "package-int8", "--self-test"]
        subprocess.run(self_test, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        (site,) = (target / "lib").glob("python*/site-packages")
        sizes: dict[str, int] = {}
        for path in site.rglob("*"):
            if path.is_file() and not path.is_symlink():
                top = path.relative_to(site).parts[0]
                sizes[top] = sizes.get(top, 0) + path.stat().st_blocks * 512
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:6]
    print(", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in largest))
    claims.at_most("environment, MB", sum(sizes.values()) / 1e6, ENVIRONMENT_MB)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help=f"turns of each contestant, {BATCH} pictures each")
    parser.add_argument("--parts", type=int, default=300, help="of each run of the whole inspector")
    parser.add_argument("--repeats", type=int, default=5, help="runs of the whole inspector, and cold starts")
    parser.add_argument("--prepared", type=Path, metavar="FOLDER", help="keep models and pictures here, and use them")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    claims = Claims()
    make_peers()
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        folder = options.prepared or Path(temporary) / "prepared"
        if not (folder / "int8.onnx").exists():
            folder.mkdir(parents=True, exist_ok=True)
            print("preparing pictures and models …", flush=True)
            prepare(folder)
        work = Path(temporary) / "work"  # the inspector's own files; pictures and models are only linked
        work.mkdir()
        for path in folder.iterdir():
            (work / path.name).symlink_to(path.resolve())
        reference_rss = race(work, 1, options.rounds, claims)
        if cores > 1:
            race(work, cores, max(1, options.rounds // 2), claims)
        sustained(work, options.parts, cores, options.repeats, claims)
        with_a_challenger(work, min(options.parts, 100), options.repeats, claims)
        cold_start(work, options.repeats, claims)
        memory(work, reference_rss, claims)
        environment_size(folder, claims)
    print(f"\nload average {os.getloadavg()[0]:.1f} on {cores} cores; {claims.missed} claims missed")
    return 1 if claims.missed else 0


if __name__ == "__main__":
    sys.exit(main())
