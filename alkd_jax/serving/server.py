"""The server of the HTTP application: where it listens, how many connections it takes, and how it ends."""

import asyncio
import errno
import ipaddress
import resource
import socket
from typing import Any

from alkd_jax.checks import check_between
from alkd_jax.errors import requiring_extra, shown
from alkd_jax.serving.connections import BoundedProtocol, open_connections

with requiring_extra("uvicorn"):
    import uvicorn

KEEP_ALIVE_SECONDS, GRACE_SECONDS = 30, 5
"""How long a connection may be idle between two requests; how long the end of the service waits for answers."""

_ALL_ADDRESSES = ("0.0.0.0", "::")
_MAX_CONNECTIONS, _SPARE_DESCRIPTORS = 4096, 64
_CLOSE_HEADER = (b"connection", b"close")


class Server(uvicorn.Server):
    """uvicorn's server, which also bounds the time of a client, and answers what was sent before it ends."""

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % 10 == 0:
            for connection in open_connections(self.server_state):
                connection.check_time()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers every request that was sent, with ``Connection: close``, and closes all connections."""
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE_HEADER]
        for connection in open_connections(self.server_state):
            if not connection.is_idle:
                connection.shutdown()
        # The system has accepted connections that this process has not seen; closing the socket would reset them.
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def create_server(application: Any, *, max_connections: int | None = None, **options: Any) -> Server:
    """Returns a server, to be run with ``server.run(sockets=listen(host, port))``.

    A signal ends it as uvicorn does: it answers what was sent, and then the process ends by that signal.

    Args:
        application: an ASGI application, as of :func:`alkd_jax.serving.http.application`.
        max_connections: the largest number of connections at a time; by default 4,096, or fewer where the process may
            open fewer files.
        **options: further options of ``uvicorn.Config``.
    """
    if max_connections is None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        max_connections = min(_MAX_CONNECTIONS, max(files // 2, files - _SPARE_DESCRIPTORS))
        if files == resource.RLIM_INFINITY:
            max_connections = _MAX_CONNECTIONS
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        workers=1,
        proxy_headers=False,
        access_log=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **options,
    )
    return Server(config)


def listen(host: str, port: int) -> list[socket.socket]:
    """Opens the sockets of a service.

    Args:
        host: an address or a name of this machine; "0.0.0.0" or "::", written so, for all of its addresses.
        port: the port; 0 for a free one.

    Raises:
        ValueError: the host is none, or stands for all addresses without saying so; or the port is none.
        OSError: the port is in use, or the address is not one of this machine.
    """
    check_between(0, 65535, port=port)
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            port = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_listen_at(family, address, port))
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Returns the distinct addresses of a host.

    Raises:
        ValueError: there is none, or one of them is all addresses of this machine, which was not asked for.
    """
    expected = "expected an address or name of this machine, or 0.0.0.0 for all of its addresses"
    try:
        if not host or host != host.strip():
            raise ValueError("no name")
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise ValueError(f"host is {shown(host)}; {expected}") from error
    addresses: list[tuple[socket.AddressFamily, str]] = list(
        dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    )
    for _, address in addresses:
        if ipaddress.ip_address(address.partition("%")[0]).is_unspecified and host not in _ALL_ADDRESSES:
            raise ValueError(f"host is {shown(host)}, which means all addresses; {expected}")
    return addresses


def _listen_at(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((address, port), family=family, backlog=2048)
        # Accepted connections inherit it. Without it the second part of an answer waits 40 ms for the client's receipt.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        # The error of socket.create_server holds its own text; the number is what tells the reason.
        raise OSError(error.errno or errno.EADDRNOTAVAIL, error.strerror, f"{address} port {port}") from error
