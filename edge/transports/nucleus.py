"""The connection to the Greengrass nucleus: this component's configuration, its state, calls and streams.

The client never reconnects: when the nucleus restarts, the socket closes and the token of this process is worth
nothing. `lost` then says why, and the program exits non-zero so that the nucleus starts it anew.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import awsiot.greengrasscoreipc
from awscrt.exceptions import AwsCrtError
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

from edge.errors import NotAuthorizedError, NucleusError, RefusedError, TransportError

logger = logging.getLogger(__name__)

SOCKET = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
TOKEN = "SVCUID"
CALL_TIMEOUT_S = 10.0

Answer = TypeVar("Answer")


class Nucleus:
    """One connection, for the life of this process. Make it with `connect`."""

    def __init__(self, client: GreengrassCoreIPCClientV2, watch: _Watch) -> None:
        self.client = client
        self._watch = watch
        # Callbacks of the client run in its network thread, which must not wait: they only queue what this thread does.
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._dispatch, name="nucleus-events", daemon=True)
        self._thread.start()

    @classmethod
    def connect(cls, timeout_s: float = CALL_TIMEOUT_S) -> Nucleus:
        """Connect with what the nucleus put into this process's environment.

        Raises:
            NucleusError: not started by a nucleus, or it does not answer or refuses the token.
        """
        missing = [name for name in (SOCKET, TOKEN) if not os.environ.get(name)]
        if missing:
            raise NucleusError(
                f"environment: {' and '.join(missing)} not set; the transport greengrass works only in a component "
                "that a Greengrass nucleus started"
            )
        watch = _Watch()
        try:
            client = awsiot.greengrasscoreipc.connect(lifecycle_handler=watch, timeout=timeout_s)
        except (RuntimeError, AwsCrtError, concurrent.futures.TimeoutError) as error:
            raise NucleusError(
                f"{os.environ[SOCKET]}: the nucleus does not accept this process: {_say(error)}; "
                "the token in SVCUID holds only for the process that the nucleus started"
            ) from error
        return cls(GreengrassCoreIPCClientV2(client, executor=None), watch)

    @property
    def lost(self) -> str:
        """Why the connection is gone for good; empty while it stands."""
        return self._watch.lost

    def read_configuration(self) -> dict[str, Any]:
        """This component's configuration: the recipe's defaults merged with what deployments changed.

        Values may come as strings where the recipe has numbers: the reader coerces them.

        Raises:
            TransportError: the nucleus does not answer.
        """
        try:
            answer = self.call("GetConfiguration", lambda: self.client.get_configuration_async(key_path=[]))
        except _MissingError:
            return {}
        return {name: value for name, value in (answer.value or {}).items() if name != "accessControl"}

    def on_configuration_change(self, callback: Callable[[dict[str, Any]], None], known: dict[str, Any]) -> None:
        """Call back with the whole configuration each time that it has changed.

        Args:
            callback: runs in a thread of this object.
            known: the configuration that the caller has; a change made since it was read is told too.

        Raises:
            TransportError: the nucleus does not answer.
        """
        last = known

        def changed() -> None:
            nonlocal last
            try:
                configuration = self.read_configuration()
            except TransportError as error:
                logger.warning("event=configuration_unreadable error=%r", str(error))
                return
            if configuration != last:
                last = configuration
                callback(configuration)

        self.stream(
            "SubscribeToConfigurationUpdate",
            lambda **handlers: self.client.subscribe_to_configuration_update_async(key_path=[], **handlers),
            lambda event: changed(),
        )
        self._events.put(changed)

    def report_state(self, state: Literal["RUNNING", "ERRORED"]) -> bool:
        """Tell the nucleus how this component does; False when it does not take that (not every nucleus does)."""
        try:
            self.call("UpdateState", lambda: self.client.update_state_async(state=state))
        except (TransportError, RefusedError) as error:
            logger.info("event=state_not_taken state=%s error=%r", state, str(error))
            return False
        return True

    def call(
        self,
        what: str,
        start: Callable[[], concurrent.futures.Future[Answer]],
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Answer:
        """Make one call and wait for its answer, with this program's errors.

        Raises:
            NucleusError: the connection is gone.
            NotAuthorizedError: the recipe's accessControl does not allow it.
            RefusedError: the nucleus finds the request itself wrong.
            TransportError: anything that may be over later: offline, too much at once, no answer in time.
        """
        if self.lost:
            raise NucleusError(self.lost)
        try:
            return start().result(timeout_s)
        except concurrent.futures.TimeoutError as error:
            raise TransportError(f"{what}: the nucleus gave no answer in {timeout_s:g} s") from error
        except model.UnauthorizedError as error:
            raise NotAuthorizedError(f"{what}: {_say(error)}; see accessControl in the recipe") from error
        except (model.ComponentNotFoundError, model.ResourceNotFoundError) as error:
            raise _MissingError(f"{what}: {_say(error)}") from error
        except model.InvalidArgumentsError as error:
            raise RefusedError(f"{what}: {_say(error)}") from error
        except model.GreengrassCoreIPCError as error:
            raise TransportError(f"{what}: {_say(error)} (offline, or too many messages at once)") from error
        except (eventstreamrpc.ConnectionClosedError, eventstreamrpc.StreamClosedError, AwsCrtError) as error:
            if self._watch.wait_lost(1.0):
                raise NucleusError(self.lost) from error
            raise TransportError(f"{what}: {_say(error)}") from error
        except (eventstreamrpc.EventStreamError, eventstreamrpc.EventStreamOperationError, RuntimeError) as error:
            raise TransportError(f"{what}: {_say(error)}") from error

    def stream(
        self,
        what: str,
        start: Callable[..., tuple[concurrent.futures.Future[Any], Any]],
        on_event: Callable[[Any], None],
        on_closed: Callable[[], None] | None = None,
    ) -> Any:
        """Open a stream; its events run in the thread of this object.

        Returns:
            The operation, which has `close`.

        Raises:
            As `call`.
        """
        operations = []

        def begin() -> concurrent.futures.Future[Any]:
            future, operation = start(
                on_stream_event=lambda event: self._events.put(lambda: on_event(event)),
                on_stream_error=self._stream_error,
                on_stream_closed=(lambda: self._events.put(on_closed)) if on_closed is not None else None,
            )
            operations.append(operation)
            return future

        self.call(what, begin)
        return operations[0]

    def close(self) -> None:
        """End the connection."""
        self._watch.closing = True
        self.client.close()
        self._events.put(None)
        self._thread.join(5)

    @staticmethod
    def _stream_error(error: Exception) -> bool:
        logger.warning("event=stream_error error=%r", _say(error))
        return False  # an event that cannot be read: keep the stream

    def _dispatch(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                event()
            except Exception:  # a fault in one callback must not silence all later events
                logger.exception("event=callback_fault")


class _MissingError(TransportError):
    """The nucleus has no such configuration."""


class _Watch(eventstreamrpc.LifecycleHandler):
    """Notes when the connection is gone."""

    def __init__(self) -> None:
        self.lost = ""
        self.closing = False
        self._gone = threading.Event()

    def on_disconnect(self, reason: Exception | None) -> None:
        """Called by the client, last of all."""
        why = _say(reason) if reason is not None else "closed"
        self.lost = f"the connection to the nucleus is gone ({why}); only a new process gets a new one"
        self._gone.set()
        if not self.closing:
            logger.error("event=nucleus_lost reason=%r", why)

    def wait_lost(self, timeout_s: float) -> bool:
        """True when the connection is gone; a failed call may be the first to see that."""
        return self._gone.wait(timeout_s)


def _say(error: BaseException) -> str:
    """The message that an error carries, or its name."""
    text = getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
