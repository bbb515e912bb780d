"""Ends a flow's step with one clear line when the error is one that we raise on purpose."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

from metaflow import user_step_decorator
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY

from edge.errors import EdgeError
from inspection.errors import InspectionError


@user_step_decorator
def ends_clearly(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Iterator[None]:
    """Print a known error as one line and do not retry: the same input would fail the same way again.

    Any other exception keeps its traceback and Metaflow's retries, which are for machines that fail.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("inspection").setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.WARNING)
    try:
        yield
    except (InspectionError, EdgeError) as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)
