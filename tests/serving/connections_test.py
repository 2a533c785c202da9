"""Clients that send nothing, half of something, too much, or read nothing; and the end of the service."""

import contextlib
import http.client
import json
import socket

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from alkd_jax.serving import connections
from alkd_jax.serving import http as serving_http
from tests.helpers import served, shipped_students

QUESTION = json.dumps({"session": ["id-1"]}).encode()
HEAD = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
STUDENT = shipped_students.student()
WHOLE = HEAD % len(QUESTION) + QUESTION


@pytest.fixture(scope="module")
def server():
    with served.serving(STUDENT) as server:
        yield server


@pytest.fixture
def connected(server):
    """Makes connections, and closes them at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda to=server: stack.enter_context(contextlib.closing(served.connect(to)))


def test_idle_connections_make_room_for_new_ones(connected):
    with served.serving(STUDENT, max_connections=4) as server:
        idle = [connected(server) for _ in range(4)]
        for number, connection in enumerate(idle):
            connection.sendall(WHOLE if number == 0 else b"POST /recommend HT" if number == 1 else b"")
        assert served.read_answer(idle[0])[0] == 200
        for _ in range(6):
            assert served.ask(server, QUESTION)[0] == 200
        # Whoever has been idle for the longest time was closed first.
        assert idle[1].recv(1) == b""


def test_a_connection_too_many_is_told_so_while_all_are_busy(connected):
    with served.serving(STUDENT, max_connections=2) as server:
        busy = [connected(server) for _ in range(2)]
        for connection in busy:
            connection.sendall(HEAD % len(QUESTION))
        served.wait_for(lambda: sum(not each.is_idle for each in list(server.server_state.connections)) == 2)
        status, headers, answer = served.read_answer(connected(server))
        assert (status, headers["connection"], answer.keys()) == (503, "close", {"error"})
        for connection in busy:
            connection.sendall(QUESTION)
            assert served.read_answer(connection)[0] == 200
        assert served.ask(server, QUESTION)[0] == 200


def test_headers_that_never_end_are_given_up(server, connected, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.01)
    silent, half, second = (connected() for _ in range(3))
    second.sendall(WHOLE)
    assert served.read_answer(second)[0] == 200
    for connection in (half, second):
        connection.sendall(b"POST /recommend HTTP/1.1\r\nHost:")
    for connection in (silent, half, second):
        status, headers, answer = served.read_answer(connection)
        assert (status, headers["connection"], answer.keys()) == (408, "close", {"error"})
        assert connection.recv(1) == b""


def test_a_connection_between_two_requests_is_no_late_one(server, connected, monkeypatch):
    patient = connected()
    patient.sendall(WHOLE)
    assert served.read_answer(patient)[0] == 200
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.01)
    late = connected()
    assert served.read_answer(late)[0] == 408
    patient.sendall(WHOLE)
    assert served.read_answer(patient)[0] == 200


def test_a_client_that_reads_nothing_is_left(connected, monkeypatch):
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.01)
    with served.serving(shipped_students.student(num_items=900)) as server:
        for each in server.sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection = connected(server)
        body = json.dumps({"session": ["id-1"], "k": 899}).encode()
        connection.sendall(20 * (HEAD % len(body) + body))
        served.wait_for(lambda: server.server_state.total_requests)
        served.wait_for(lambda: not server.server_state.connections)
        assert served.ask(server, QUESTION)[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n",
        b"GET /" + b"a" * 100_000,
    ],
)
def test_what_is_not_http_is_answered_in_json(server, connected, data):
    connection = connected()
    connection.sendall(data)
    status, headers, answer = served.read_answer(connection)
    assert (status, headers["connection"], answer.keys()) == (400, "close", {"error"})
    assert served.ask(server, QUESTION)[0] == 200


@pytest.mark.parametrize("path", ["/health", "/metrics", "/recommend", "/nowhere"])
def test_a_body_is_bounded_on_every_route(server, connected, path):
    connection = connected()
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n".encode())
    connection.sendall(b"x" * (serving_http._MAX_DISCARDED_BYTES + 1))
    status, headers, answer = served.read_answer(connection)
    assert (status, headers["connection"]) == (413, "close")
    assert "larger than 65536 bytes" in answer["error"]


def test_a_connection_is_used_again_after_a_body_that_was_read_to_its_end(server, connected):
    connection = connected()
    for _ in range(2):
        connection.sendall(HEAD % 200_000 + b"x" * 200_000)
        assert served.read_answer(connection)[0] == 413
    connection.sendall(WHOLE)
    assert served.read_answer(connection)[0] == 200


def test_the_end_answers_what_was_sent(monkeypatch, connected):
    with served.serving(STUDENT) as server:
        busy, resting, idle = (connected(server) for _ in range(3))
        for connection in (busy, resting):
            connection.sendall(WHOLE)
            status, headers, _ = served.read_answer(connection)
            assert (status, "connection" in headers) == (200, False)
        busy.sendall(HEAD % len(QUESTION))
        served.wait_for(lambda: any(not each.is_idle for each in list(server.server_state.connections)))
        server.should_exit = True
        served.wait_for(lambda: (b"connection", b"close") in server.server_state.default_headers)
        resting.sendall(WHOLE)
        busy.sendall(QUESTION)
        for connection in (busy, resting):
            status, headers, _ = served.read_answer(connection)
            assert (status, headers.get("connection")) == (200, "close")
            assert connection.recv(1) == b""
        assert idle.recv(1) == b""


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.sampled_from(["id-1", "k"]),
        lambda each: (
            st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(["session", "k", "n", ""]), each, max_size=3)
        ),
        max_leaves=5,
    ),
    st.integers(-1, 40),
)
def test_any_body_is_answered_or_refused(value, cut):
    """Called as the route calls it: whatever is no `HTTPException` would be answered with 500."""
    data = json.dumps(value).encode()
    data = data if cut < 0 else data[:cut]
    response = None
    with contextlib.suppress(serving_http.HTTPException):
        response, known, unknown = serving_http.answer_request(STUDENT, data)
    if response is not None:
        assert known
        assert len(json.loads(response.body)["items"]) <= 20
        assert unknown == len(value["session"]) - known


@pytest.mark.slow
@settings(max_examples=2_000)
@given(data=st.binary(max_size=300), place=st.integers(0, len(WHOLE)), length=st.integers(0, 60))
def test_any_bytes_on_a_connection_leave_the_service_alive(server, data, place, length):
    with contextlib.closing(served.connect(server)) as connection:
        connection.sendall(WHOLE[:place] + data + WHOLE[place + length :])
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(2**16):
                answer += part
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert not answer.startswith(b"HTTP/1.1 500")


def test_many_connections_at_once_are_all_answered(connected):
    with served.serving(STUDENT) as server:
        clients = [connected(server) for _ in range(30)]
        for _ in range(2):
            for connection in clients:
                connection.sendall(WHOLE)
            assert {served.read_answer(connection)[0] for connection in clients} == {200}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.request("GET", "/metrics")
            assert json.loads(connection.getresponse().read())["statuses"] == {"200": 60}
