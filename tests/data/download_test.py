"""Downloads from a local test server: they resume, are checked, and fail with an error of one line."""

import errno
import functools
import hashlib
import http.server
import os
import threading

import pytest

from alkd_jax.data.download import PUBLIC_DATASETS, PublicDataset, download
from alkd_jax.errors import FullDiskError
from experiments import download as command

DATA = b"PK" + bytes(range(256)) * 20_000


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves DATA with ranges; breaks off early or ignores ranges if ``stop_at`` and ``ranges`` say so."""

    def do_GET(self):
        server = self.server
        server.requested_ranges.append(self.headers.get("Range"))
        if server.answer is not None:
            self.wfile.write(server.answer)
            return
        if self.headers.get("If-Range", server.version) != server.version:
            del self.headers["Range"]
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
        self.send_header("ETag", server.version)
        self.end_headers()
        self.wfile.write(DATA[first : server.stop_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requested_ranges, server.ranges, server.stop_at = [], True, None
        server.answer, server.version = None, '"1"'
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
    with pytest.raises(ConnectionError, match="broke off after 1,500,000 of 5,120,002 bytes; the same"):
        download("mine", tmp_path, datasets=sets_of(server))
    assert not (tmp_path / "file.zip").exists()
    server.stop_at, server.ranges = None, ranges
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == DATA
    assert server.requested_ranges == [None, "bytes=1500000-"]
    assert {path.name for path in tmp_path.iterdir()} == {"file.zip", "file.zip.sha256"}


def test_another_version_at_the_server_is_fetched_from_its_start(server, tmp_path):
    server.stop_at = 1_500_000
    with pytest.raises(ConnectionError, match="broke off"):
        download("mine", tmp_path, datasets=sets_of(server))
    (tmp_path / "file.zip.part").write_bytes(b"PK of the other version")
    server.stop_at, server.version = None, '"2"'
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == DATA


HEAD = b"HTTP/1.0 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "no answer"),
        (b"\x00\xff\r\n\r\n", "no answer"),
        (HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", "no answer"),
        (b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "the server answers 302"),
        (b"HTTP/1.0 302 Found\r\nLocation: /file.zip\r\n\r\n", "the server answers 302"),
        (b"HTTP/1.0 503 \x1b[2J\r\n\r\n", "the server answers 503"),
        (HEAD + b"\r\nPK", "the length is ''; expected a number"),
        (HEAD + b"Content-Length: \xb2\r\n\r\nPK", "the length is '²'"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nPK", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nPK", "broke off"),
        (b"HTTP/1.0 206 Partial\r\nContent-Length: 2\r\nContent-Range: bytes 7-8/9\r\n\r\nPK", "expected bytes from 0"),
        (HEAD + b"Content-Length: 6\r\n\r\n<html>", "sends b'<html>'; expected a file of its kind"),
    ],
)
def test_a_server_that_lies_is_refused_and_nothing_is_lost(server, tmp_path, answer, message):
    (tmp_path / "file.zip.sha256").write_text("0" * 64)
    server.answer = answer
    with pytest.raises((ConnectionError, ValueError), match=message) as error:
        download("mine", tmp_path, datasets=sets_of(server))
    assert str(error.value).isprintable()
    assert not (tmp_path / "file.zip").exists()
    (tmp_path / "file.zip").write_bytes(b"mine")
    (tmp_path / "file.zip.sha256").unlink()
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == b"mine"


def test_chunks_without_a_length_are_read(server, tmp_path):
    server.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nPK!\r\n0\r\n\r\n"
    download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip").read_bytes() == b"PK!"


@pytest.mark.parametrize("record", [b"", b"\xff\n", b"abc  file.zip"])
def test_a_damaged_record_of_the_checksum_is_named(server, tmp_path, record):
    (tmp_path / "file.zip").write_bytes(DATA)
    (tmp_path / "file.zip.sha256").write_bytes(record)
    with pytest.raises(ValueError, match=r"file\.zip\.sha256: .* expected a SHA-256; delete"):
        download("mine", tmp_path, datasets=sets_of(server))


def test_a_full_disk_keeps_what_came(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, *_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("alkd_jax.data.download._read", Full)
    (tmp_path / "file.zip.part").write_bytes(DATA[:100])
    with pytest.raises(FullDiskError):
        download("mine", tmp_path, datasets=sets_of(server))
    assert (tmp_path / "file.zip.part").read_bytes() == DATA[:100]


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
