"""An SQLite file with one owner at a time: opened after a look at what it is, written in durable transactions.

WAL and full sync, so that what a transaction wrote survives any death; the owner holds a lock that any death frees.
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
    """The file; `open` opens it, `close` or `with` gives it back."""

    def __init__(self, path: str | os.PathLike[str], tables: str, *, readonly: bool = False):
        """Opens the file, or makes it.

        Args:
            path: the file; beside it stands one for the lock.
            tables: what makes the tables of a new file.
            readonly: look only, while another process may be writing.

        Raises:
            FileNotFoundError: there is none to look at.
            ValueError: another process has it, or the file is damaged, foreign, from a newer version, or not to be
                written.
        """
        self.path = pathlib.Path(path)
        if readonly and not self.path.exists():
            raise FileNotFoundError(f"{path}: no such store")
        self._lock: int | None = None
        self._mutex, self._owner = threading.Lock(), os.getpid()
        try:
            if not readonly:
                self._lock = _take_lock(self.path)
            is_new = not self.path.exists() or self.path.stat().st_size == 0
            if not is_new:
                is_new = _check_file(self.path)
            elif not readonly:
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            target = _look_only(self.path) if readonly else f"{self.path.resolve().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(
                target, uri=True, timeout=30, isolation_level=None, check_same_thread=False
            )
            if not readonly:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                if is_new:
                    marks = f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_SCHEMA};"
                    self._connection.executescript(f"BEGIN IMMEDIATE; {tables} {marks} COMMIT;")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._unlock()
            if isinstance(error, ValueError | FileNotFoundError):
                raise
            raise ValueError(f"{path}: {error}; the file is left as it was") from error

    def close(self) -> None:
        """Gives the file back."""
        with self._mutex:
            self._connection.close()
            if os.getpid() == self._owner:
                self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction, or none of it."""
        if os.getpid() != self._owner:
            raise ValueError(f"{self.path} was opened by process {self._owner}; open it anew after a fork")
        with self._mutex:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Where the disk is full SQLite has rolled back by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def read(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query."""
        with self._mutex:
            return self._connection.execute(query, values).fetchall()

    def verify(self) -> None:
        """Raises ValueError unless the file is sound."""
        told = self.read("PRAGMA integrity_check")[0][0]
        if told != "ok":
            raise ValueError(f"{self.path}: {told}")


def _take_lock(path: pathlib.Path) -> int:
    """Takes the store's lock; the file of it stays, the lock ends with the process."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ValueError(f"{path} is in use by another process; one at a time may ask") from None
    return lock


def _look_only(path: pathlib.Path) -> str:
    """Address of a file that is only looked at."""
    # Beside a file in WAL mode SQLite writes even to read it, unless told that nobody else can write.
    still = "" if os.access(path.resolve().parent, os.W_OK) else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{still}"


def _check_file(path: pathlib.Path) -> bool:
    """Raises ValueError unless the file is a store of this version; True for one that has no tables yet."""
    with open(path, "rb") as file:
        # SQLite would take a file of a few bytes for an empty one.
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path}: no store; the file is left as it was")
    try:
        with contextlib.closing(sqlite3.connect(_look_only(path), uri=True)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.Error as error:
        raise ValueError(f"{path}: no store, or a damaged one ({error}); the file is left as it was") from error
    if application == version == tables == 0:
        return True
    if application != _APPLICATION:
        raise ValueError(f"{path}: an SQLite file of something else; the file is left as it was")
    if version != _SCHEMA:
        raise ValueError(f"{path}: a store of version {version}, expected {_SCHEMA}; the file is left as it was")
    return False
