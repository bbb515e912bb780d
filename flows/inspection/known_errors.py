"""Ends a flow's step with one clear line when the error is one that we raise on purpose."""

import errno
import logging
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn

from metaflow import user_step_decorator
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY

from edge.errors import EdgeError
from inspection.errors import InspectionError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)


@user_step_decorator
def ends_clearly(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Iterator[None]:
    """Print a known error as one line and do not retry: the same input would fail the same way again.

    A full disk is one, wherever it shows: no retry finds more space.
    Any other exception keeps its traceback and Metaflow's retries, which are for machines that fail.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("inspection").setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.WARNING)
    try:
        yield
    except (InspectionError, EdgeError) as error:
        _end(error)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _end(
            StorageError(
                f"{error.filename or tempfile.gettempdir()}: no space left ({error.strerror}); free space there, or "
                "set TMPDIR to a folder on a larger disk, then go on with `resume`"
            )
        )


def _end(error: Exception) -> NoReturn:
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)
