"""Fetching images from S3: ours against the AWS CLI's `s3 sync`, from a server on this machine.

    python bench/intake_s3.py [--images 2000] [--kilobytes 200] [--rounds 3]

The server is moto's, in a process of its own. Ours lists, fetches through Metaflow's client, verifies each file's MD5
and stores it; the peer lists, fetches and stores. Each runs in every round, one after the other, from nothing, in a
process of its own, start included. The AWS CLI is installed from PyPI into `.venv-peers-awscli` by the first run.
Claim: at least as fast as the peer. Also shown: a second run, when nothing changed.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS = REPOSITORY / ".venv-peers-awscli"
AWSCLI = "awscli==1.46.3"
WANT = 1.0  # times as fast as the peer
BUCKET = "bench"
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""
OURS = """
import sys
from inspection.dataset.options import SourceOptions
from inspection.dataset.sources import open_source
source = open_source(sys.argv[1], SourceOptions(store=sys.argv[2]))
images = source.images()
source.fetch([image.uri for image in images], progress=False)
print(len(images))
"""


def make_peer() -> Path:
    """The AWS CLI in an environment of its own; installed once."""
    program = PEERS / "bin" / "aws"
    if not program.exists():
        print(f"installing {AWSCLI} into {PEERS.name} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        pip = [PEERS / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, AWSCLI], check=True)
    return program


def fill(images: int, size_bytes: int) -> None:
    """Put pictures that are no pictures into the bucket: only their bytes matter here."""
    import boto3

    client = boto3.client("s3")
    region = {"LocationConstraint": os.environ["AWS_DEFAULT_REGION"]}
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=region)  # type: ignore[arg-type]
    for index in range(images):
        label = ("good", "scratch")[index % 2]
        client.put_object(Bucket=BUCKET, Key=f"set/{label}/{index:05d}.jpg", Body=os.urandom(size_bytes))


def measure(*command: object) -> tuple[float, float]:
    """Seconds and CPU seconds of a command and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu_s


def compare(images: int, size_bytes: int, rounds: int) -> None:
    """Print the claim's ratio, measured in alternation."""
    peer_program = make_peer()
    peer, ours, again = [], [], []
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as temporary:
        fill(images, size_bytes)
        print(f"{images} objects of {size_bytes / 1000:.0f} kB; {os.cpu_count()} cores; {rounds} rounds")
        for number in range(rounds):
            copies, store = Path(temporary) / f"copies-{number}", Path(temporary) / f"store-{number}"
            their_s, their_cpu_s = measure(peer_program, "s3", "sync", "--quiet", f"s3://{BUCKET}/set", copies)
            our_s, our_cpu_s = measure(sys.executable, "-c", OURS, f"s3://{BUCKET}/set", store)
            again_s, _ = measure(sys.executable, "-c", OURS, f"s3://{BUCKET}/set", store)
            there = sum(path.is_file() for path in copies.rglob("*"))
            here = sum(path.is_file() for path in store.rglob("*"))
            if (there, here) != (images, images):
                raise SystemExit(f"want {images} files, found {there} of the peer and {here} of ours")
            peer.append(their_s)
            ours.append(our_s)
            again.append(again_s)
            print(
                f"round {number + 1}: peer {their_s:.2f} s (CPU {their_cpu_s:.2f}), ours {our_s:.2f} s "
                f"(CPU {our_cpu_s:.2f}), again {again_s:.2f} s, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            shutil.rmtree(copies)
            shutil.rmtree(store)
    ratio = statistics.median(peer) / statistics.median(ours)
    each = [one / other for one, other in zip(peer, ours, strict=True)]
    print(f"aws s3 sync / ours: {ratio:.2f} (rounds {min(each):.2f} to {max(each):.2f}), want >= {WANT}")
    rate = images / statistics.median(ours)
    print(f"ours: {rate:.0f} images/s, {rate * size_bytes / 1e6:.0f} MB/s; again {statistics.median(again):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kilobytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.stdout.readline().strip()}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    try:
        compare(options.images, options.kilobytes * 1000, options.rounds)
    finally:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main()
