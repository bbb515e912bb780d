"""What the messages of the results topic look like: one result as an object, or several passes as a list."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge.results import Result, dump_result, parse_result


def fill_batch(results: Sequence[Result], limit_bytes: int) -> tuple[list[Result], bytes]:
    """Put as many results, from the first on, into one message as fit.

    Args:
        results: at least one, oldest first.
        limit_bytes: largest payload. A first result that is larger stands alone: whether it is taken, the transport
            tells.

    Returns:
        The results that are in, and the payload: a JSON list, UTF-8.
    """
    texts = [dump_result(results[0])]
    size = len(texts[0].encode()) + 2
    for result in results[1:]:
        text = dump_result(result)
        size += len(text.encode()) + 1
        if size > limit_bytes:
            break
        texts.append(text)
    return list(results[: len(texts)]), f"[{','.join(texts)}]".encode()


def read_results(payload: bytes | str) -> list[Result]:
    """Read a message of the results topic.

    Raises:
        EdgeError: it is not what devices send; see `parse_result`.
        ValueError: it is not JSON.
    """
    message = json.loads(payload)
    return [parse_result(json.dumps(item)) for item in (message if isinstance(message, list) else [message])]
