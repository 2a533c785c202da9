"""Files written whole or not at all, read with errors of one line, named by their content; folders locked by a process.

Every file that replaces another one is written beside it, flushed to the disk, and moved over it in one step; then the
folder is flushed, so that after a loss of power either the former file or the new one is there.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

LOCK = ".lock"
"""The file that the process working in a folder has locked. It holds the number of the process and stays there."""

_locks: dict[tuple[int, pathlib.Path], int] = {}
_locks_guard = threading.Lock()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields the path of a new file, which replaces ``path`` when the block ends without an error.

    Args:
        path: the file to make or to replace; its folder exists.

    Yields:
        A path in the same folder; the block writes and closes the file there.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8, with the line ends it has, so that the file is there whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Writes JSON so that the file is there whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads JSON.

    Raises:
        ValueError: the file is damaged; the error names file and line.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}") from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lock_folder(folder: pathlib.Path) -> bool:
    """Keeps other processes from working in a folder until this process ends, however it ends.

    Args:
        folder: an existing folder; this process may have locked it already.

    Returns:
        Whether this call took the lock; False where this process had it before.

    Raises:
        ValueError: another process has the lock.
    """
    lock, key = folder / LOCK, (os.getpid(), folder.resolve())
    with _locks_guard:
        before = _locks.get(key)
        if before is not None:
            # A folder that was deleted and made again has another lock file.
            if lock.exists() and os.path.samestat(os.fstat(before), lock.stat()):
                return False
            os.close(_locks.pop(key))
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            number = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):
                raise
            owner = f"process {number}" if number.isdecimal() else "another process"
            raise ValueError(f"{folder} is in use by {owner}; wait until it ends, or choose another folder") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        _locks[key] = descriptor
        return True


def unlock_folder(folder: pathlib.Path) -> None:
    """Lets other processes work in a folder that this process has locked."""
    with _locks_guard:
        os.close(_locks.pop((os.getpid(), folder.resolve())))


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
