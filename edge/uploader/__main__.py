"""The uploader's process: `python -m edge.uploader --spool FOLDER --to DIR|s3://bucket/prefix`.

It sends every image that waits, prints one line of JSON about it and ends. Killed at any moment it begins again where
it was: an image leaves the queue only after the store has confirmed it.
"""

import argparse
import dataclasses
import fcntl
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.errors import EdgeError, UploadError
from edge.logs import set_up_logs
from edge.spool.images import ImageQueue
from edge.uploader.sending import Sent, send_all
from edge.uploader.settings import UploadSettings
from edge.uploader.stores import open_store

LOCK_FILE = "uploader.lock"
DONE, AGAIN = 0, 75  # exit codes; Source: EX_TEMPFAIL of sysexits.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: nothing waits any more, or another uploader is at work; 75: try again later, the line of JSON says why.
    """
    options = _parser().parse_args(arguments)
    os.nice(options.nice)
    settings = UploadSettings(
        to=options.to, profile=options.profile, region=options.region, max_kb_per_s=options.max_kb_per_s
    )
    sent = _alone(options.spool, settings)
    print(json.dumps(dataclasses.asdict(sent)), flush=True)
    return DONE if sent.state in ("done", "busy") else AGAIN


def _alone(spool: Path, settings: UploadSettings) -> Sent:
    """Upload unless another process does."""
    try:
        with (spool / LOCK_FILE).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Sent(state="busy", message="another uploader is at work on this spool")
            return _upload(spool, settings)
    except OSError as error:
        return Sent(state="spool", message=f"{spool}: cannot lock the spool: {error.strerror or error}; check the disk")


def _upload(spool: Path, settings: UploadSettings) -> Sent:
    faults = settings.check()
    if faults:
        return Sent(state="settings", message="; ".join(faults))
    try:
        store = open_store(settings)
    except UploadError as error:
        return Sent(state=error.state, message=str(error))
    try:
        queue = ImageQueue(spool)
    except (EdgeError, sqlite3.Error) as error:
        return Sent(state="spool", message=str(error))
    return send_all(queue, store, lambda: os.utime(spool / LOCK_FILE))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge.uploader", description="Send kept images to their store.")
    parser.add_argument("--spool", type=Path, required=True, metavar="FOLDER", help="the inspector's spool")
    parser.add_argument("--to", required=True, metavar="DIR|s3://BUCKET/PREFIX", help="where the images go")
    parser.add_argument("--profile", default="", help="profile of the AWS configuration")
    parser.add_argument("--region", default="", help="of the bucket")
    parser.add_argument("--max-kb-per-s", type=float, default=0.0, help="cap on the network (default: none)")
    parser.add_argument("--nice", type=int, default=0, help="how far to stand back for other programs, 0 to 19")
    return parser


if __name__ == "__main__":
    set_up_logs("info", sys.stderr)  # stdout is for the report
    logging.getLogger("botocore").setLevel(logging.WARNING)
    sys.exit(main())
