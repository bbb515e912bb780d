"""Where a line's images are, as an address that means the same from every working directory."""

from pathlib import Path

from inspection.errors import DataError, SettingsError
from inspection.settings import REPOSITORY, Settings

SAMPLE = "sample"  # `[data] source` that means the built-in generator


def find_images(settings: Settings) -> str:
    """Where the line's images are; the built-in sample is generated when it is meant and not there yet.

    Raises:
        SettingsError: none are named.
    """
    source = settings.data.source
    if not source:
        raise SettingsError("[data] source: want a folder of images, found none; give it there or with --data FOLDER")
    if source != SAMPLE:
        return locate(source)
    from inspection.sample import make_sample

    data = settings.data
    folder = sample_folder(settings) / f"{data.sample_images}-images-seed-{data.sample_seed}"
    return str(make_sample(folder, data.sample_images, data.sample_seed))


def locate(source: str) -> str:
    """A folder or list as an absolute path; an address as it is."""
    return source if "://" in source else str(Path(source).expanduser().resolve())


def check_place(location: str) -> None:
    """Check that there is a folder or list where the images are to be; does not look into it, nor at S3.

    Raises:
        DataError: there is none.
    """
    if "://" not in location and not Path(location).exists():
        raise DataError(f"{location}: want a folder or list of images, found nothing; correct [data] source or --data")


def sample_folder(settings: Settings) -> Path:
    """Where the built-in sample's pictures are generated: always a folder of this machine."""
    root = settings.storage_root
    return (REPOSITORY / ".lineside" if "://" in root else Path(root)) / SAMPLE
