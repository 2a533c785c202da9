"""A service in a thread of the test's process, and questions to it."""

import contextlib
import http.client
import json
import socket
import threading
import time

from alkd_jax.serving import http as serving_http
from alkd_jax.serving.server import create_server, listen


@contextlib.contextmanager
def serving(recommender, **options):
    """Serves a student; yields the server, whose sockets are those it listens on."""
    server = create_server(serving_http.application(recommender), log_level="critical", **options)
    server.sockets = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=(server.sockets,))
    thread.start()
    server.port = server.sockets[0].getsockname()[1]
    try:
        wait_for(lambda: server.started)
        yield server
    finally:
        server.should_exit = True
        thread.join()


def wait_for(condition):
    """Waits until the server's thread has done something."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the server did not do it"
        time.sleep(0.005)


def connect(server):
    """A connection that sends nothing by itself."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def call(server, method, path, body=None, accept="application/json"):
    """Sends one request; returns status and body of the answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(method, path, body, {"Accept": accept})
        answer = connection.getresponse()
        return answer.status, answer.read()


def ask(server, value):
    """Sends a body to /recommend; returns status and JSON of the answer."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    status, answer = call(server, "POST", "/recommend", body)
    return status, json.loads(answer)


def read_answer(connection):
    """Reads the answer on a raw connection: status, headers and JSON."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, dict(answer.getheaders()), json.loads(answer.read())
