"""The HTTP service over a real socket: answers, limits, errors, health and metrics."""

import contextlib
import http.client
import json
import re
import subprocess
import sys

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from alkd_jax.serving import http as serving_http
from tests.helpers import paths, served, shipped_students


@pytest.fixture(scope="module")
def server():
    with served.serving(shipped_students.student()) as server:
        yield server


def test_an_answer_is_the_recommenders(server):
    session = ["id-3", "nobody", "id-7"]
    status, answer = served.ask(server, {"session": session, "k": 4})
    assert status == 200
    wanted = shipped_students.student().recommend(session, 4)
    assert [(each["id"], each["title"], each["score"]) for each in answer["items"]] == [tuple(each) for each in wanted]
    assert answer["unknown"] == 1
    assert len(served.ask(server, {"session": session})[1]["items"]) == 10


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[" * 60_000, 400, "not JSON"),
        (b'{"session": ["id-1"], "k": ' + b"9" * 5000 + b"}", 400, "not JSON"),
        ([], 400, "expected {"),
        ({"k": 3}, 400, "expected {"),
        ({"session": ["id-1"], "n": 3}, 400, "expected {"),
        ({"session": "id-1"}, 400, "list of item ids"),
        ({"session": [1]}, 400, "list of item ids"),
        ({"session": ["id-1"] * 1001}, 400, "length of session is 1001"),
        ({"session": ["id-1"], "k": 0}, 400, "expected an integer in 1..1000"),
        ({"session": ["id-1"], "k": 1001}, 400, "expected an integer in 1..1000"),
        ({"session": ["id-1"], "k": True}, 400, "expected an integer in 1..1000"),
        ({"session": ["id-1"], "k": 2.0}, 400, "expected an integer in 1..1000"),
        ({"session": []}, 422, "is 0 of 0"),
        ({"session": ["\ud800", "x"]}, 422, "is 0 of 2"),
        (b" " * 70_000, 413, "larger than 65536 bytes"),
    ],
)
def test_a_bad_request_is_reported_in_one_line(server, body, status, message):
    found, answer = served.ask(server, body)
    assert found == status
    assert answer.keys() == {"error"}
    assert message in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/recommend", 405), ("GET", "/", 404)])
def test_other_addresses_answer_with_json_too(server, method, path, status):
    found, answer = served.call(server, method, path)
    assert found == status
    assert json.loads(answer).keys() == {"error"}


def test_a_fault_of_ours_says_nothing_of_our_insides(server, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(serving_http, "answer_request", broken)
    assert served.ask(server, {"session": ["id-1"]}) == (500, {"error": "internal error"})
    assert json.loads(served.call(server, "GET", "/metrics")[1])["statuses"]["500"] == 1
    monkeypatch.undo()
    assert served.ask(server, {"session": ["id-1"]})[0] == 200


def test_a_body_that_never_ends_is_given_up(server, monkeypatch):
    monkeypatch.setattr(serving_http, "_BODY_SECONDS", 0.1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/recommend")
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"{")
        assert connection.getresponse().status == 408


def test_health_names_the_student(server):
    status, answer = served.call(server, "GET", "/health")
    health = json.loads(answer)
    assert status == 200
    assert (health["status"], health["backbone"], health["items"], health["version"]) == ("ok", "fpmc", 20, "abc")


def test_metrics_count_what_happened():
    with served.serving(shipped_students.student()) as server:
        assert json.loads(served.call(server, "GET", "/metrics")[1])["latency_ms"] == {
            "p50": None,
            "p90": None,
            "p99": None,
        }
        for _ in range(3):
            served.ask(server, {"session": ["id-1", "id-2", "x"]})
        served.ask(server, {"session": ["x"]})
        served.ask(server, b"?")
        metrics = json.loads(served.call(server, "GET", "/metrics")[1])
        assert (metrics["requests"], metrics["statuses"]) == (5, {"200": 3, "400": 1, "422": 1})
        assert (metrics["items"], metrics["unknown_items"]) == (9, 3)
        assert 0 < metrics["latency_ms"]["p50"] <= metrics["latency_ms"]["p90"] <= metrics["latency_ms"]["p99"]
        text = served.call(server, "GET", "/metrics", accept="text/plain")[1].decode()
        assert 'alkd_requests_total{status="200"} 3' in text
        latency = re.search(r'^alkd_latency_seconds\{quantile="0\.99"\} (\S+)$', text, re.MULTILINE)
        assert 1e3 * float(latency[1]) == pytest.approx(metrics["latency_ms"]["p99"], abs=0.01)


def test_the_service_loads_no_jax():
    code = "import sys, alkd_jax.serving.http; print([m for m in ('jax', 'flax', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.strip() == "[]"
