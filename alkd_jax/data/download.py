"""Downloads of public datasets by name, with their terms of use, resumed transfers and verified checksums."""

import contextlib
import dataclasses
import functools
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from alkd_jax.errors import printable, shown, writing
from alkd_jax.io import sha256_of, write_text
from alkd_jax.locks import locked

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30.0
_NUMBER = re.compile("[0-9]{1,18}")
_FIRST_BYTES = {".zip": b"PK", ".gz": b"\x1f\x8b"}
_GROUPLENS = "https://files.grouplens.org/datasets"
_AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data"
_AMAZON_TERMS = "The publishers state no license; research use, cite the paper, do not redistribute the texts."
_MOVIELENS_TERMS = "Research use; no redistribution without permission; cite Harper and Konstan 2015."


@dataclasses.dataclass(frozen=True)
class PublicDataset:
    """A public dataset and its addresses.

    Attributes:
        files: file name → address.
        terms: summary of the terms of use; the publisher's own page is binding.
        source: source string for ``experiments.prepare``, with DIR for the folder.
        checksums: file name → "md5:…" or "sha256:…", if the publisher or several independent users published one.
    """

    files: Mapping[str, str]
    terms: str
    source: str
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _amazon(year: int, folder: str, reviews: str, meta: str) -> PublicDataset:
    names = [path.rpartition("/")[2] for path in (reviews, meta)]
    files = {name: f"{_AMAZON}/{folder}/{path}" for name, path in zip(names, (reviews, meta), strict=True)}
    return PublicDataset(files, _AMAZON_TERMS, f"amazon{year}:DIR/{names[0]}:DIR/{names[1]}")


PUBLIC_DATASETS: Mapping[str, PublicDataset] = {
    "hetrec2011": PublicDataset(
        {"hetrec2011-movielens-2k-v2.zip": f"{_GROUPLENS}/hetrec2011/hetrec2011-movielens-2k-v2.zip"},
        "Non-commercial use, by permission of GroupLens; cite MovieLens, IMDb and Rotten Tomatoes.",
        "hetrec2011:DIR/hetrec2011-movielens-2k-v2.zip",
    ),
    "ml-1m": PublicDataset(
        {"ml-1m.zip": f"{_GROUPLENS}/movielens/ml-1m.zip"},
        _MOVIELENS_TERMS,
        "movielens:DIR/ml-1m.zip",
        {"ml-1m.zip": "md5:c4d9eecfca2ab87c1945afe126590906"},
    ),
    "ml-32m": PublicDataset(
        {"ml-32m.zip": f"{_GROUPLENS}/movielens/ml-32m.zip"}, _MOVIELENS_TERMS, "movielens:DIR/ml-32m.zip"
    ),
    "lastfm1k": PublicDataset(
        {"lastfm-dataset-1K.tar.gz": "http://mtg.upf.edu/static/datasets/last.fm/lastfm-dataset-1K.tar.gz"},
        "Non-commercial use, by permission of Last.fm.",
        "lastfm1k:DIR/lastfm-dataset-1K.tar.gz",
    ),
    "amazon2014-games": _amazon(
        2014, "amazon", "categoryFiles/reviews_Video_Games.json.gz", "categoryFiles/meta_Video_Games.json.gz"
    ),
    "amazon2018-games": _amazon(
        2018, "amazon_v2", "categoryFiles/Video_Games.json.gz", "metaFiles2/meta_Video_Games.json.gz"
    ),
    "amazon2023-games": _amazon(
        2023,
        "amazon_2023",
        "raw/review_categories/Video_Games.jsonl.gz",
        "raw/meta_categories/meta_Video_Games.jsonl.gz",
    ),
}
"""Name → public dataset that :func:`download` can fetch."""


def download(
    name: str,
    folder: str | os.PathLike[str],
    *,
    datasets: Mapping[str, PublicDataset] = PUBLIC_DATASETS,
    progress: Callable[[str, int, int | None], None] = lambda file, done, total: None,
) -> dict[str, str]:
    """Downloads the files of a public dataset and resumes where an earlier attempt stopped.

    A file gets its name only when it is complete. Its SHA-256 is written beside it; later downloads are compared with
    it, and with the published checksum where there is one.

    Args:
        name: a key of ``datasets``.
        folder: folder for the files; it is created if it does not exist.
        datasets: name → dataset.
        progress: function called with the file name, the bytes received, and the total bytes or None.

    Returns:
        File name → SHA-256.

    Raises:
        ValueError: the name is unknown, a checksum is wrong, what came is not a file of its kind, or another process
            downloads into the folder. A file that is there already is never replaced.
        ConnectionError: there is no network, or the server does not answer or sends another part of the file. The bytes
            received so far stay on the disk.
    """
    if name not in datasets:
        raise ValueError(f"dataset is {name!r}; expected one of {', '.join(datasets)}")
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    with locked(folder):
        for file, address in datasets[name].files.items():
            published, record = datasets[name].checksums.get(file), folder / f"{file}.sha256"
            if not (folder / file).exists():
                partial = folder / f"{file}.part"
                _fetch(address, partial, functools.partial(progress, file))
                try:
                    _check_kind(partial, file)
                    _verify(partial, published, record)
                except ValueError:
                    partial.unlink()
                    raise
                finally:
                    partial.with_name(f"{partial.name}.version").unlink(missing_ok=True)
                os.replace(partial, folder / file)
            digests[file] = _verify(folder / file, published, record)
    return digests


def _fetch(address: str, partial: pathlib.Path, progress: Callable[[int, int | None], None]) -> None:
    received = partial.stat().st_size if partial.exists() else 0
    version = partial.with_name(f"{partial.name}.version")
    with _request(address, partial, received, version) as response:
        if response is None:
            return
        done, total = _parse_extent(response, received, address)
        if response.status == 200:
            write_text(version, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        with writing(partial), partial.open("ab" if response.status == 206 else "wb") as file:
            while chunk := _read(response, address, done):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done > total:
        partial.unlink()
        raise ConnectionError(f"{address}: the server sends {done:,} bytes; expected {total:,}")
    if total is not None and done < total:
        raise ConnectionError(
            f"{address}: the transfer broke off after {done:,} of {total:,} bytes; the same command resumes it"
        )


@contextlib.contextmanager
def _request(address: str, partial: pathlib.Path, received: int, version: pathlib.Path) -> Iterator[Any]:
    """Yields the server's answer; None where the partial file is the entire file already."""
    headers = {"Accept-Encoding": "identity"}
    if received:
        headers["Range"] = f"bytes={received}-"
        # Another version of the file comes from its start.
        if version.exists() and (tag := version.read_text(encoding="utf-8")) and not tag.startswith("W/"):
            headers["If-Range"] = tag
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            total_bytes = error.headers.get("Content-Range", "").rpartition("/")[2]
            is_complete = error.code == 416 and total_bytes == str(received)
            if error.code == 416 and not is_complete:
                partial.unlink()
            if not is_complete:
                reason = printable(error.reason, width=100)
                raise ConnectionError(
                    f"{address}: the server answers {error.code} {reason}; expected the file"
                ) from error
        yield None
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = printable(getattr(error, "reason", error), width=200)
        raise ConnectionError(
            f"{address}: no answer ({reason}); is there a network? Otherwise fetch the file "
            f"on another machine and put it at {partial.with_suffix('')}"
        ) from error
    with response:
        if address.startswith("https:") and not response.url.startswith("https:"):
            raise ConnectionError(f"{address}: the server leads to {shown(response.url)}; expected an address of https")
        yield response


def _read(response: Any, address: str, done: int) -> bytes:
    try:
        return cast(bytes, response.read(_CHUNK_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"{address}: the transfer broke off after {done:,} bytes; the same command resumes it"
        ) from error


def _parse_extent(response: Any, received: int, address: str) -> tuple[int, int | None]:
    """Returns the number of bytes that are on the disk already, and the total or None if it comes in chunks."""
    length = response.headers.get("Content-Length", "")
    num_bytes = int(length) if _NUMBER.fullmatch(length) else None
    if num_bytes is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
        raise ConnectionError(f"{address}: the length is {shown(length)}; expected a number, to see whether all came")
    if response.status == 200:
        return 0, num_bytes
    byte_range, _, total_bytes = response.headers.get("Content-Range", "").partition("/")
    if response.status != 206 or not byte_range.startswith(f"bytes {received}-"):
        raise ConnectionError(
            f"{address}: the server answers {response.status} with {shown(byte_range)}; expected bytes from {received}"
        )
    if _NUMBER.fullmatch(total_bytes):
        return received, int(total_bytes)
    return received, None if num_bytes is None else received + num_bytes


def _check_kind(partial: pathlib.Path, name: str) -> None:
    """Checks the first bytes of a compressed file: some servers answer with a page that says what went wrong."""
    with partial.open("rb") as file:
        head = file.read(40)
    start = next((start for ending, start in _FIRST_BYTES.items() if name.endswith(ending)), b"")
    if not head.startswith(start):
        raise ValueError(f"{partial.with_name(name)}: the server sends {shown(head)}; expected a file of its kind")


def _verify(path: pathlib.Path, published: str | None, record: pathlib.Path) -> str:
    """Returns the SHA-256 of a file after comparing it with the published checksum and with the recorded one."""
    digest = sha256_of(path)
    if published is not None:
        algorithm, _, expected = published.partition(":")
        with path.open("rb") as file:
            computed = hashlib.file_digest(file, algorithm).hexdigest()
        if computed != expected:
            raise ValueError(f"{path}: {algorithm} is {computed}; expected {expected}; download the file again")
    if record.exists():
        text = record.read_bytes()[:64].decode("latin-1")
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise ValueError(f"{record}: {shown(text)}; expected a SHA-256; delete this file if you trust {path.name}")
        if text != digest:
            raise ValueError(
                f"{path}: sha256 is {digest}; expected {text} as in the first download; delete {record.name} to accept "
                "another version"
            )
    else:
        write_text(record, f"{digest}  {path.name.removesuffix('.part')}\n")
    return digest
