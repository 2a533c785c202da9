"""An SQLite file with one owner at a time, checked before it is opened and written in durable transactions.

The write-ahead log is synced in full, so that a committed transaction survives a crash or a loss of power. The owner
holds a file lock, which the operating system frees when the process ends.
"""

import contextlib
import fcntl
import os
import pathlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

_MAGIC = b"SQLite format 3\0"
_APPLICATION, _SCHEMA = 0x414C4B44, 1


class Database:
    """An open SQLite file; `close` closes it and frees its lock."""

    def __init__(self, path: str | os.PathLike[str], tables: str, *, readonly: bool = False):
        """Opens the file, or creates it.

        Args:
            path: the file; the lock is the file `path`.lock beside it.
            tables: SQL that creates the tables of a new file.
            readonly: only read, while another process may be writing.

        Raises:
            FileNotFoundError: the file is to be read only and does not exist.
            ValueError: another process owns the file, or it is damaged, of another application or version, or not
                writable.
        """
        self.path = pathlib.Path(path)
        if readonly and not self.path.exists():
            raise FileNotFoundError(f"{path}: no such store")
        self._lock: int | None = None
        self._mutex, self._owner = threading.Lock(), os.getpid()
        try:
            if not readonly:
                self._lock = _lock_file(self.path)
            is_new = not self.path.exists() or self.path.stat().st_size == 0
            if not is_new:
                is_new = _check_file(self.path)
            elif not readonly:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            uri = _readonly_uri(self.path) if readonly else f"{self.path.resolve().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
            if not readonly:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                if is_new:
                    version = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA};"
                    self._connection.executescript(f"BEGIN IMMEDIATE; {tables} {version} COMMIT;")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._unlock()
            if isinstance(error, ValueError | FileNotFoundError):
                raise
            raise ValueError(f"{path}: {error}; the file is unchanged") from error

    def close(self) -> None:
        """Closes the file and frees its lock."""
        with self._mutex:
            self._connection.close()
            if os.getpid() == self._owner:
                self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs the block as one durable transaction, which is rolled back where the block raises.

        Raises:
            ValueError: the file was opened by the process from which this one was forked.
        """
        if os.getpid() != self._owner:
            raise ValueError(f"{self.path} was opened by process {self._owner}; expected to be reopened after a fork")
        with self._mutex:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has already rolled back by itself where the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, *values: Any) -> list[Any]:
        """Returns the rows of a query."""
        with self._mutex:
            return self._connection.execute(query, values).fetchall()

    def verify(self) -> None:
        """Raises ValueError where SQLite's integrity check finds damage."""
        result = self.read("PRAGMA integrity_check")[0][0]
        if result != "ok":
            raise ValueError(f"{self.path}: {result}")


def _lock_file(path: pathlib.Path) -> int:
    """Locks the file `path`.lock and returns its descriptor; the file stays, the lock ends with the process."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"{path} is in use by another process; expected one process at a time") from None
    return lock


def _readonly_uri(path: pathlib.Path) -> str:
    """Returns the URI that opens a file for reading only."""
    # SQLite writes beside a file in WAL mode even to read it, unless the URI says that nobody can write to the file.
    immutable = "" if os.access(path.resolve().parent, os.W_OK) else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{immutable}"


def _check_file(path: pathlib.Path) -> bool:
    """Checks that a file is a store of this version.

    Returns:
        Whether the file is an SQLite file that has no tables yet.

    Raises:
        ValueError: the file is damaged, or of another application or version.
    """
    with open(path, "rb") as file:
        # SQLite would treat a file of a few bytes as an empty database.
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path}: not an SQLite file; expected a store; the file is unchanged")
    try:
        with contextlib.closing(sqlite3.connect(_readonly_uri(path), uri=True)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.Error as error:
        raise ValueError(f"{path}: damaged ({error}); expected a store; the file is unchanged") from error
    if application == version == tables == 0:
        return True
    if application != _APPLICATION:
        raise ValueError(f"{path}: an SQLite file of another application; expected a store; the file is unchanged")
    if version != _SCHEMA:
        raise ValueError(f"{path}: version is {version}; expected {_SCHEMA}; the file is unchanged")
    return False
