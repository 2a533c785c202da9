"""Where a service may listen, and what the command says if it cannot."""

import contextlib
import errno
import socket

import pytest

pytest.importorskip("uvicorn")

from alkd_jax import errors
from alkd_jax.serving.server import create_server, listen


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "0",
        "00.0.0.0",
        "0x0",
        "::0",
        "0:0:0:0:0:0:0:0",
        " 127.0.0.1",
        "127.0.0.1\n",
        "a\0b",
        "é" * 70,
        "nowhere",
    ],
)
def test_a_host_that_is_none_or_stands_for_all_addresses_is_refused(host, monkeypatch):
    find = socket.getaddrinfo

    def found(name, *arguments, **options):
        if name == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return find(name, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(ValueError, match=r"host is '.*; expected an address or name of this machine") as caught:
        listen(host, 0)
    assert errors.explain(caught.value).count("\n") == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0.0.0.0"])
def test_a_host_of_this_machine_is_listened_to(host):
    (listening,) = listen(host, 0)
    with contextlib.closing(listening):
        assert listening.getsockname()[0] == ("0.0.0.0" if host == "0.0.0.0" else "127.0.0.1")
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match=f"port is {port}; expected from 0 to 65535"):
        listen("127.0.0.1", port)


def test_a_port_in_use_is_one_line():
    (taken,) = listen("127.0.0.1", 0)
    with contextlib.closing(taken):
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            listen("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    assert errors.explain(caught.value) == f"127.0.0.1 port {port}: the address is in use; choose another port"


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(OSError, match="assign") as caught:
        listen("192.0.2.1", 0)
    assert errors.explain(caught.value) == "192.0.2.1 port 0: this machine has no such address"


@pytest.mark.parametrize("workers", ["4", "many", ""])
def test_the_number_of_workers_in_the_environment_has_no_effect(workers, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    assert create_server(None).config.workers == 1


def test_connections_leave_files_to_open(monkeypatch):
    resource = pytest.importorskip("resource")
    for files, most in ((64, 32), (256, 192), (1024, 960), (2**20, 4096), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert create_server(None).config.limit_concurrency == most
