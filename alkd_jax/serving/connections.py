"""Connections of the service: their number, and the time that a client may take, are bounded.

uvicorn closes a connection that is idle between two requests. This protocol adds what it lacks: a limit of time for
the headers of a request and for a client that does not read its answers, a limit of connections under which an idle one
makes room for a new one, errors as JSON, and an end at which no request is lost.
"""

import http
import json
from typing import Any

from alkd_jax.errors import requiring_extra

with requiring_extra("h11"):
    import h11
with requiring_extra("uvicorn"):
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.server import ServerState

HEADER_SECONDS, STALL_SECONDS, DRAIN_SECONDS = 10.0, 30.0, 0.5
"""How long a client may take for the headers of a request; how long it may read nothing of an answer; how long the end
of the service waits for a request that is on its way."""

_LINGER_SECONDS, _MAX_LINGERING = 1.0, 8


class BoundedProtocol(H11Protocol):
    """One connection of the service.

    uvicorn's option ``limit_concurrency`` is the largest number of connections. Where more come in, the one that has
    been idle for the longest time is closed; if none is idle, the new one is answered with 503.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # uvicorn itself would count idle connections against the requests of others, and answer in plain text.
        self.max_connections, self.limit_concurrency = self.limit_concurrency, None
        self.idle_since = self.loop.time()
        self.header_since: float | None = self.idle_since
        self.unread = (0, self.idle_since)
        self.is_refused = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        """Makes room for this connection, or refuses it."""
        super().connection_made(transport)
        if self.max_connections is None or len(self.connections) <= self.max_connections:
            return
        open_ones = [
            each for each in open_connections(self.server_state) if not (each.is_refused or each.transport.is_closing())
        ]
        if len(open_ones) <= self.max_connections:
            return
        idle = [each for each in open_ones if each.is_idle and each is not self]
        if idle:
            min(idle, key=lambda each: each.idle_since).transport.close()
        else:
            self.refuse(503, f"all {self.max_connections} connections are busy; expected a later attempt")

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request, and notes when its headers began."""
        if self.is_refused:
            return
        super().data_received(data)
        if not self.is_idle:
            self.header_since = None
        elif self.header_since is None:
            self.header_since = self.loop.time()

    def on_response_complete(self) -> None:
        """Notes that the connection is idle."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers what is not HTTP."""
        self.refuse(400, "the request is not valid HTTP/1.1; expected a request line, headers and a body")

    def refuse(self, status: int, message: str) -> None:
        """Answers with an error and closes the connection, after what the client has sent is read and discarded.

        A connection that is closed with unread data would be reset, and the client might not see the answer.
        """
        self.is_refused = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": message}).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            reason = http.HTTPStatus(status).phrase
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        if (
            sum(each.is_refused for each in open_connections(self.server_state)) <= _MAX_LINGERING
            and self.transport.can_write_eof()
        ):
            self.transport.write_eof()
            self.loop.call_later(_LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def check_time(self) -> None:
        """Ends the connection if its client takes too long; called about once a second."""
        now, size = self.loop.time(), self.transport.get_write_buffer_size()
        if size == 0 or self.unread[0] == 0 or size < self.unread[0]:
            self.unread = (size, now)
        elif now - self.unread[1] > STALL_SECONDS:
            self.transport.abort()
        late = self.header_since is not None and now - self.header_since > HEADER_SECONDS
        if late and self.is_idle and not (self.is_refused or self.transport.is_closing()):
            self.refuse(408, f"the headers took longer than {HEADER_SECONDS:g} s; expected a whole request")

    def shutdown(self) -> None:
        """Ends the connection after the request that is being answered, or that is on its way."""
        if self.is_idle:
            self.loop.call_later(DRAIN_SECONDS, self._close_if_idle)
        else:
            self.cycle.keep_alive = False
            self.cycle.default_headers = self.server_state.default_headers

    def _close_if_idle(self) -> None:
        if self.is_idle:
            self.transport.close()


def open_connections(state: ServerState) -> list[BoundedProtocol]:
    """Returns all connections of a server at this moment."""
    return [each for each in state.connections if isinstance(each, BoundedProtocol)]
