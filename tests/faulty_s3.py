"""An S3 server on loopback whose answers a test may replace, and that counts what it was asked."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from wsgi_server import serve

Answer = tuple[str, bytes] | None  # status and body instead of the server's own
ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>as the test wants</Message></Error>'


class FaultyS3:
    """The server as a WSGI application.

    Attributes:
        answer: gives the answer to (method, key) that replaces the server's; None lets it through.
        fetched: keys of the objects that were read, in order.
        change: changes the body of an object that is read.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.answer: Callable[[str, str], Answer] = lambda method, key: None
        self.change: Callable[[str, bytes], bytes] = lambda key, body: body
        self.fetched: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].encode("latin-1").decode()
        key = path.lstrip("/").partition("/")[2]
        with self._lock:
            answer = self.answer(method, key)
        if answer is not None:
            status, body = answer
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        if method != "GET" or not key:
            return self._app(environ, start_response)
        with self._lock:
            self.fetched.append(key)
        kept: list[Any] = []
        body = b"".join(self._app(environ, lambda *response: kept.extend(response)))
        start_response(kept[0], kept[1])
        return [self.change(key, body)]


@contextmanager
def serve_faulty_s3() -> Iterator[tuple[FaultyS3, str]]:
    """The server and its address."""
    application = FaultyS3()
    with serve(application) as address:
        yield application, address


def error(status: str, code: str) -> Answer:
    """An answer as S3 gives it for an error."""
    return status, ERROR.format(code=code).encode()
