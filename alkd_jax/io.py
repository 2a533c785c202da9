"""Files and folders written whole or not at all, read with errors of one line, and known by their content.

Every file that replaces another one is written beside it, flushed to the disk, and moved over it in one step; then the
folder is flushed, so that after a loss of power either the former file or the new one is there.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from alkd_jax.errors import reading, shown, writing

_digests: dict[tuple[int, int, int, int], str] = {}
"""Device, number, size and time of change of a file → its SHA-256."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields the path of a new file, which replaces ``path`` when the block ends without an error.

    Args:
        path: the file to make or to replace; its folder exists.

    Yields:
        A path in the same folder; the block writes and closes the file there.
    """
    with replacing_all([path]) as (partial,), writing(path, partial=partial):
        yield partial


@contextlib.contextmanager
def replacing_all(paths: Iterable[str | os.PathLike[str]]) -> Iterator[list[pathlib.Path]]:
    """Yields the paths of new files, which replace ``paths`` together when the block ends without an error.

    All new files are on the disk before the first one is moved, so that an error, such as a full disk, leaves every
    former file.

    Args:
        paths: distinct files to make or to replace; their folders exist.

    Yields:
        A path for each in the same folder; the block writes and closes the files there.

    Raises:
        IsADirectoryError: one of the paths is a folder; no file was replaced.
    """
    targets = [pathlib.Path(path) for path in paths]
    partials = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in targets]
    try:
        yield partials
        for partial, target in zip(partials, targets, strict=True):
            with writing(target, partial=partial):
                _flush(partial)
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        for partial, target in zip(partials, targets, strict=True):
            os.replace(partial, target)
        for folder in dict.fromkeys(target.parent for target in targets):
            _flush(folder)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8, with the line ends it has, so that the file is there whole or not at all."""
    write_texts({path: text})


def write_texts(texts: Mapping[str | os.PathLike[str], str]) -> None:
    """Writes several texts as :func:`write_text` does; an error leaves every former file.

    Args:
        texts: path → content.
    """
    with replacing_all(texts) as partials:
        for (path, text), partial in zip(texts.items(), partials, strict=True):
            with writing(path, partial=partial):
                partial.write_text(text, encoding="utf-8", newline="")


def to_json(value: object, *, name: str = "JSON") -> str:
    """Returns the content of a JSON file, in ASCII, so that half surrogates come back as they were.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have; see :func:`finite_or_none`.
    """
    check_finite_values(name, value)
    return json.dumps(value, indent=1) + "\n"


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Writes JSON so that the file is there whole or not at all.

    Raises:
        ValueError: as in :func:`to_json`.
    """
    write_text(path, to_json(value, name=str(path)))


def check_finite_values(name: str, value: object) -> None:
    """Refuses nested values with a number that is not finite.

    Raises:
        ValueError: a number is NaN or infinite; the error names its place.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; expected a finite number")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        check_finite_values(f"{name}: {key}", part)


def finite_or_none(value: Any) -> Any:
    """Returns nested values with None for every number that is undefined, NaN or infinite, and lists for tuples."""
    if isinstance(value, dict):
        return {key: finite_or_none(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads JSON.

    Raises:
        ValueError: the file is damaged; the error names file and line.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes().decode())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}; expected JSON") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no text in UTF-8, or nested too deeply; expected JSON") from error


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: the file is damaged or holds another value; the error names it.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {shown(value)}; expected a JSON object")
    return value


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of all files in a folder.

    A file that this process has read before and whose size and time of change are the same is not read again.
    """
    if not path.is_dir():
        return _digest_of_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{_digest_of_file(file)} {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _digest_of_file(path: pathlib.Path) -> str:
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _digests:
        _digests[key] = sha256_of(path)
    return _digests[key]


def move_into(folder: pathlib.Path, source: pathlib.Path, names: Sequence[str]) -> None:
    """Moves complete files and folders into a folder; each replaces its namesake, which is there until then.

    Args:
        folder: where they go.
        source: a folder of the same file system that holds them.
        names: their paths, relative to both folders, in the order in which they are moved.
    """
    for name in names:
        for path in (source / name).rglob("*") if (source / name).is_dir() else [source / name]:
            _flush(path)
    for name in names:
        final = folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        former = source / f"{name}.former"
        if final.is_dir():
            final.rename(former)
        os.replace(source / name, final)
        _flush(final.parent)


def remove_folder(folder: pathlib.Path) -> None:
    """Removes a folder, which is there with all its files or not at all; what a kill leaves has a hidden name."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def is_leftover(path: pathlib.Path) -> bool:
    """Whether a path has the name of what a killed process leaves unfinished."""
    return path.name.startswith(".") and path.suffix in (".partial", ".removed")


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed processes left unfinished in and below a folder in which no other process works."""
    for path in [path for path in folder.rglob(".*") if is_leftover(path)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def save_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Writes arrays by name to an npz file, which appears whole or not at all."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@contextlib.contextmanager
def open_arrays(path: pathlib.Path) -> Iterator[Any]:
    """Opens an npz file, whose arrays are read by name within the block.

    Raises:
        ValueError: the file is damaged, or lacks an array that is read.
    """
    with reading(path, expected="an undamaged npz file with this array"), np.load(path, allow_pickle=False) as archive:
        yield archive


def _flush(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk; systems that cannot flush a folder are left so."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
