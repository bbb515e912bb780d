"""Drops pictures of parts into a device's inbox, as a process of the device: `python -m … .feeder FOLDER`.

Pictures of the sample line are made once for all devices of a fleet, and come again and again in changing light: to
make each anew would keep a core busy.
"""

import itertools
import logging
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from inspection.errors import InspectionError, RolloutError
from inspection.fleet.local.device_settings import DeviceSettings
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.processes import end_all, mark, spawn

log = logging.getLogger(__name__)

SAMPLE_PARTS, SAMPLE_SEED = 60, 4711  # a seed that no training uses by default
MAX_WAITING = 20  # files in the inbox; a device that does not keep up, or is not running, gets no more
_MARK = ":feeder"  # no component's name has a colon
_AGAIN_S = 10.0
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_LIGHT = 0.015  # largest change, either way


class FeederProcess:
    """The feeder as its nucleus sees it: kept running while there is something to feed.

    Args:
        folder: of the device.
        settings: what is fed, and how fast.
    """

    def __init__(self, folder: DeviceFolder, settings: DeviceSettings) -> None:
        self._folder = folder
        self._feeds = settings.parts != ""
        self._process: subprocess.Popen[bytes] | None = None
        self._again_s = 0.0

    def poll(self) -> None:
        """Start it, or start it again."""
        if self._process is not None and self._process.poll() is not None:
            log.warning("event=feeder_ended status=%d", self._process.returncode)
            self._process = None
            self._again_s = time.monotonic() + _AGAIN_S
        if self._feeds and self._process is None and time.monotonic() >= self._again_s:
            command = [sys.executable, "-P", "-m", "inspection.fleet.local.feeder", str(self._folder.root)]
            environment = {**os.environ, **mark(self._folder.root, _MARK)}
            self._process = spawn(command, self._folder.root, environment, self._folder.log("feeder"))

    def stop(self) -> None:
        """End it."""
        self._feeds = False
        if self._process is not None:
            end_all(self._folder.root, 2.0, _MARK)
            self._process.wait()
            self._process = None


def feed(folder: DeviceFolder, settings: DeviceSettings, go_on: Callable[[], bool]) -> None:
    """Drop pictures at the rate of the settings for as long as `go_on` says so.

    Raises:
        RolloutError: there are no pictures.
    """
    every_s = 60.0 / settings.parts_per_minute
    next_s = time.monotonic()
    for number, picture in enumerate(pictures(settings)):
        while not (go_on() and _waiting(folder.inbox) < MAX_WAITING):
            if not go_on():
                return
            time.sleep(min(1.0, every_s))
            next_s = max(next_s, time.monotonic())
        name = f"part-{time.time_ns()}-{number:06d}{picture.suffix.lower()}"
        staged = folder.inbox / f".{name}"
        if settings.parts == "sample":
            _relight(picture, staged)
        else:
            shutil.copyfile(picture, staged)
        staged.rename(folder.inbox / name)
        next_s += every_s
        while (rest_s := next_s - time.monotonic()) > 0 and go_on():
            time.sleep(min(1.0, rest_s))


def pictures(settings: DeviceSettings) -> Iterator[Path]:
    """Pictures without end: of a folder in the order of their names, of the sample in any order.

    Raises:
        RolloutError: there are none.
    """
    if settings.parts == "sample":
        from inspection.sample import make_sample  # a second to import

        folder = Path(settings.cloud) / "parts" / f"sample-{SAMPLE_SEED}"
        made = sorted(make_sample(folder, SAMPLE_PARTS, SAMPLE_SEED).glob("*/*.jpg"))
        draw = random.Random(settings.thing)
        while True:
            yield from draw.sample(made, len(made))
    folder = Path(settings.parts)
    for _ in itertools.count():
        found = sorted(path for path in folder.glob("*") if path.suffix.lower() in _PICTURES and path.is_file())
        if not found:
            raise RolloutError(
                f"[fleet.local] parts: want a folder of pictures ({', '.join(_PICTURES)}), found none in {folder}"
            )
        yield from found


def _waiting(inbox: Path) -> int:
    with os.scandir(inbox) as entries:
        return sum(entry.is_file() for entry in entries)


def _relight(picture: Path, target: Path) -> None:
    """The picture in other light; no two are alike, to the last bit."""
    from PIL import Image

    from inspection.synthesis.camera import JPEG_QUALITY

    gain = 1.0 + random.uniform(-_LIGHT, _LIGHT)
    with Image.open(picture) as image:
        lit = image.point([min(255, round(level * gain)) for level in range(256)] * len(image.getbands()))
        lit.save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0, comment=uuid.uuid4().hex.encode())


def main() -> int:
    """Feed until the nucleus is gone."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    folder = DeviceFolder(Path(sys.argv[1]))
    parent = os.getppid()
    try:
        settings = DeviceSettings.read(folder)
        assert settings is not None  # the nucleus, which started this, has read it
        feed(folder, settings, lambda: os.getppid() == parent)
    except (InspectionError, OSError) as error:
        log.error("event=feeder_ends error=%r", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
