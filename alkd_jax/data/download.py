"""Public data sets by name: terms, resumed transfer, checked sums. Nothing is fetched unless this is called."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

_CHUNK = 1 << 20
_WAIT = 30.0
_GROUPLENS = "https://files.grouplens.org/datasets"
_AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data"
_AMAZON_TERMS = "Its makers state no licence; research use, cite the paper, do not pass the texts on."
_MOVIELENS_TERMS = "Research use; no redistribution without permission; cite Harper and Konstan 2015."


@dataclasses.dataclass(frozen=True)
class PublicSet:
    """One data set and where it lives.

    Attributes:
        files: file name → address.
        terms: of use, in short; the source's own page counts.
        source: what ``experiments.prepare`` takes, with DIR for the folder.
        sums: file name → "md5:…" or "sha256:…", where the makers or several independent users publish one.
    """

    files: Mapping[str, str]
    terms: str
    source: str
    sums: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _amazon(year: int, folder: str, reviews: str, meta: str) -> PublicSet:
    names = [path.rpartition("/")[2] for path in (reviews, meta)]
    files = {name: f"{_AMAZON}/{folder}/{path}" for name, path in zip(names, (reviews, meta), strict=True)}
    return PublicSet(files, _AMAZON_TERMS, f"amazon{year}:DIR/{names[0]}:DIR/{names[1]}")


PUBLIC_SETS: Mapping[str, PublicSet] = {
    "hetrec2011": PublicSet(
        {"hetrec2011-movielens-2k-v2.zip": f"{_GROUPLENS}/hetrec2011/hetrec2011-movielens-2k-v2.zip"},
        "Non-commercial use, by permission of GroupLens; cite MovieLens, IMDb and Rotten Tomatoes.",
        "hetrec2011:DIR/hetrec2011-movielens-2k-v2.zip",
    ),
    "ml-1m": PublicSet(
        {"ml-1m.zip": f"{_GROUPLENS}/movielens/ml-1m.zip"},
        _MOVIELENS_TERMS,
        "movielens:DIR/ml-1m.zip",
        {"ml-1m.zip": "md5:c4d9eecfca2ab87c1945afe126590906"},
    ),
    "ml-32m": PublicSet(
        {"ml-32m.zip": f"{_GROUPLENS}/movielens/ml-32m.zip"}, _MOVIELENS_TERMS, "movielens:DIR/ml-32m.zip"
    ),
    "lastfm1k": PublicSet(
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
"""What :func:`download` knows by name."""


def download(
    name: str,
    folder: str | os.PathLike[str],
    *,
    sets: Mapping[str, PublicSet] = PUBLIC_SETS,
    progress: Callable[[str, int, int | None], None] = lambda file, done, total: None,
) -> dict[str, str]:
    """Fetch a public data set's files, going on where an earlier attempt stopped.

    A file is called by its name only when it is whole. Its SHA-256 is written beside it; where no sum is published,
    that of the first download is what later ones are held to.

    Args:
        name: a key of ``sets``.
        folder: is made where it is missing.
        sets: what can be had.
        progress: told file, bytes there, and bytes in all where the server says.

    Returns:
        File name → SHA-256.

    Raises:
        ValueError: the name is unknown, a checksum is wrong, or the server sends something else than asked.
        ConnectionError: there is no network, or the server does not answer; what came so far is kept.
    """
    if name not in sets:
        raise ValueError(f"data set {name!r}, expected one of {', '.join(sets)}")
    place = pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    digests = {}
    for file, address in sets[name].files.items():
        if not (place / file).exists():
            partial = place / f"{file}.part"
            _fetch(address, partial, functools.partial(progress, file))
            try:
                _check(partial, sets[name].sums.get(file), place / f"{file}.sha256")
            except ValueError:
                partial.unlink()
                raise
            os.replace(partial, place / file)
        digests[file] = _check(place / file, sets[name].sums.get(file), place / f"{file}.sha256")
    return digests


def _fetch(address: str, partial: pathlib.Path, progress: Callable[[int, int | None], None]) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_WAIT)
    except urllib.error.HTTPError as error:
        with error:
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if error.code == 416 and whole == str(there):
                return
            if error.code == 416:
                partial.unlink()
            raise ConnectionError(f"{address}: the server answers {error.code} {error.reason}") from error
    except OSError as error:
        raise ConnectionError(
            f"{address}: no answer ({getattr(error, 'reason', error)}); is there a network? Otherwise fetch the file "
            f"on another machine and put it at {partial.with_suffix('')}"
        ) from error
    with answer, partial.open("ab" if answer.status == 206 else "wb") as file:
        done, total = _extent(answer, there, address)
        try:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        except OSError as error:
            raise ConnectionError(f"{address}: broke off after {done:,} bytes; the same command goes on") from error
    if total is not None and done < total:
        raise ConnectionError(f"{address}: broke off after {done:,} of {total:,} bytes; the same command goes on")


def _extent(answer: Any, there: int, address: str) -> tuple[int, int | None]:
    """Bytes there already, and in all."""
    length = answer.headers.get("Content-Length", "")
    if answer.status == 200:
        return 0, int(length) if length.isdigit() else None
    reach, _, whole = answer.headers.get("Content-Range", "").partition("/")
    if not reach.startswith(f"bytes {there}-"):
        raise ConnectionError(f"{address}: the server sends {reach!r}, asked from byte {there}")
    return there, int(whole) if whole.isdigit() else None


def _check(path: pathlib.Path, published: str | None, record: pathlib.Path) -> str:
    """The file's SHA-256, after comparing what can be compared."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if published is not None:
        kind, _, wanted = published.partition(":")
        with path.open("rb") as file:
            got = hashlib.file_digest(file, kind).hexdigest()
        if got != wanted:
            raise ValueError(
                f"{path}: {kind} {got}, expected {wanted}; the file was dropped or changed, fetch it again"
            )
    with contextlib.suppress(FileNotFoundError):
        wanted = record.read_text().split()[0]
        if wanted != found:
            raise ValueError(f"{path}: sha256 {found}, expected {wanted} as when it was fetched first")
    record.write_text(f"{found}  {path.name.removesuffix('.part')}\n")
    return found
