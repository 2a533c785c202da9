"""Downloads from a local test server: they resume, are checked, and fail with an error of one line."""

import functools
import hashlib
import http.server
import threading

import pytest

from alkd_jax.data.download import PUBLIC_DATASETS, PublicDataset, download
from experiments import download as command

DATA = bytes(range(256)) * 20_000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA with ranges; breaks off early or ignores ranges if ``stop_at`` and ``ranges`` say so."""

    def do_GET(self):
        server = self.server
        server.requested_ranges.append(self.headers.get("Range"))
        first = int(self.headers.get("Range", "bytes=0-")[6:-1]) if server.ranges else 0
        if first >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - first))
        self.end_headers()
        self.wfile.write(DATA[first : server.stop_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requested_ranges, server.ranges, server.stop_at = [], True, None
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sets_of(server, total=None):
    address = f"http://127.0.0.1:{server.server_address[1]}/file.zip"
    checksums = {"file.zip": total} if total else {}
    return {"mine": PublicDataset({"file.zip": address}, "none", "x:DIR/file.zip", checksums)}


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    calls = []
    sets = sets_of(server, "md5:" + hashlib.md5(DATA).hexdigest())
    digests = download("mine", tmp_path / "raw", datasets=sets, progress=lambda *state: calls.append(state))
    assert (tmp_path / "raw" / "file.zip").read_bytes() == DATA
    assert digests == {"file.zip": hashlib.sha256(DATA).hexdigest()}
    assert calls[-1] == ("file.zip", len(DATA), len(DATA))
    download("mine", tmp_path / "raw", datasets=sets)
    assert server.requested_ranges == [None]
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"file.zip", "file.zip.sha256"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_goes_on(server, tmp_path, ranges):
    server.stop_at = 1_500_000
    with pytest.raises(ConnectionError, match="broke off after 1,500,000 of 5,120,000 bytes; the same"):
        download("mine", tmp_path, datasets=sets_of(server))
    assert not (tmp_path / "file.zip").exists()
    server.stop_at, server.ranges = None, ranges
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == DATA
    assert server.requested_ranges == [None, "bytes=1500000-"]


def test_a_whole_partial_file_is_taken(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(DATA)
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == DATA


def test_a_wrong_sum_is_refused_and_dropped(server, tmp_path):
    with pytest.raises(ValueError, match=r"md5 is \w+; expected 0000"):
        download("mine", tmp_path, datasets=sets_of(server, "md5:" + "0" * 32))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changed_since_is_noticed(server, tmp_path):
    download("mine", tmp_path, datasets=sets_of(server))
    (tmp_path / "file.zip").write_bytes(DATA[:-1])
    with pytest.raises(ValueError, match="as in the first download"):
        download("mine", tmp_path, datasets=sets_of(server))


def test_a_missing_network_is_reported_in_one_line(server, tmp_path):
    sets = sets_of(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="is there a network"):
        download("mine", tmp_path, datasets=sets)


def test_terms_are_shown_and_nothing_is_fetched_without_consent(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "download", lambda *a, **k: pytest.fail("fetched"))
    for name in PUBLIC_DATASETS:
        command.run(name, tmp_path)
    assert "Non-commercial use" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--name is 'no'"):
        command.run("no", tmp_path)


def test_consent_fetches_and_says_how_to_go_on(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "PUBLIC_DATASETS", sets_of(server))
    monkeypatch.setattr(command, "download", functools.partial(download, datasets=sets_of(server)))
    command.run("mine", tmp_path, agree=True)
    assert "experiments.prepare --source x:" in capsys.readouterr().out
