"""An SQLite file with one owner at a time, checked before it is opened and written in durable transactions.

The write-ahead log is synced in full, so that a committed transaction survives a crash or a loss of power. The owner
holds a lock on the file itself, which the operating system frees when the process ends.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from alkd_jax.errors import printable
from alkd_jax.llm.wal import has_lost_transactions

_T = TypeVar("_T")
ADVICE = (
    "nothing of it was used or changed: restore it from a backup, or keep its undamaged answers with "
    "`python -m experiments.query_llm salvage`"
)
_MAGIC = b"SQLite format 3\0"


class StoreError(ValueError):
    """The store cannot be read or written; the message is one line that names the file."""


class Database:
    """An open SQLite file; `close` closes it and frees its lock.

    Attributes:
        path: the file.
        readonly: whether it is only read.
        version: that the file was written in.
    """

    def __init__(
        self, path: str | os.PathLike[str], tables: str, *, application: int, version: int, readonly: bool = False
    ):
        """Opens the file, or creates it.

        Args:
            path: the file.
            tables: SQL that creates the tables of a new file.
            application: number of the application in the file.
            version: of the tables; a file of an earlier version is opened too.
            readonly: only read, while another process may be writing.

        Raises:
            FileNotFoundError: the file is to be read only and does not exist.
            StoreError: another process owns the file, or it is damaged, of another application or version, or not
                writable.
        """
        self.path, self.readonly = pathlib.Path(path), readonly
        if readonly and not self.path.exists():
            raise FileNotFoundError(f"{path}: no such store")
        self._lock: int | None = None
        self._mutex, self._owner = threading.Lock(), os.getpid()
        try:
            if not self.path.exists():
                header = f"PRAGMA application_id = {application}; PRAGMA user_version = {version};"
                _create(self.path, f"BEGIN IMMEDIATE; {tables} {header} COMMIT;")
            if not readonly:
                self._lock = _lock_file(self.path)
                log = self.path.with_name(f"{self.path.name}-wal")
                if log.exists() and has_lost_transactions(log.read_bytes()):
                    raise StoreError(f"{log}: damaged, so that transactions would be lost; {ADVICE}")
            self.version = _check_file(self.path, application, version)
            uri = _readonly_uri(self.path) if readonly else f"{self.path.resolve().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
            if not readonly:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA temp_store = MEMORY")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._unlock()
            if isinstance(error, StoreError):
                raise
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"{path}: {printable(reason, width=150)}; the file is unchanged") from error

    def use(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Returns what a function returns for the connection, which no other thread uses meanwhile.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._mutex:
            try:
                return work(self._connection)
            except (sqlite3.Error, UnicodeError, MemoryError) as error:
                raise StoreError(f"{self.path} cannot be read: {printable(error, width=150)}") from error

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
            StoreError: the file cannot be written, or it is no longer the one that was opened.
        """
        if os.getpid() != self._owner:
            raise ValueError(f"{self.path} was opened by process {self._owner}; expected to be reopened after a fork")
        with self._mutex:
            self._check_in_place()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                # SQLite has already rolled back by itself where the disk is full.
                if self._connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    free = shutil.disk_usage(self.path.parent).free
                    raise StoreError(
                        f"{self.path} cannot be written ({error}; {free:,} bytes free on its disk); "
                        "make room or mend the cause, and run the same command again, which continues"
                    ) from error
                raise

    def _check_in_place(self) -> None:
        """Raises StoreError where another file, or none, is at the path, so that no other process would see a write."""
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._lock), os.stat(self.path)):
                    return
            raise StoreError(
                f"{self.path} cannot be written: it was removed or replaced while this process used it; put it back"
            )

    def read(self, query: str, *values: Any) -> list[Any]:
        """Returns the rows of a query.

        Raises:
            StoreError: the file cannot be read.
        """
        return self.use(lambda connection: connection.execute(query, values).fetchall())


def _create(path: pathlib.Path, script: str) -> None:
    """Creates a file with its tables in one step, unless another process creates it meanwhile.

    No process ever sees the file empty, so that an empty one has lost its content.

    Raises:
        StoreError: a log of transactions belongs to a file that is missing.
    """
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(f"{path} is missing, but {log} holds transactions of it; expected both files or none")
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as connection:
            connection.executescript(script)
        try:
            os.link(partial, path)
        except FileExistsError:
            return
        except OSError:
            # Some file systems have no hard links.
            os.rename(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    finally:
        pathlib.Path(partial).unlink(missing_ok=True)


def _lock_file(path: pathlib.Path) -> int:
    """Locks a file and returns its descriptor; the lock ends with the process."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreError(f"{path} is in use by another process; expected one process at a time") from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _readonly_uri(path: pathlib.Path) -> str:
    """Returns the URI that opens a file for reading only."""
    # SQLite writes beside a file in WAL mode even to read it, unless the URI says that nobody can write to the file.
    immutable = "" if os.access(path.resolve().parent, os.W_OK) else "&immutable=1"
    return f"{path.resolve().as_uri()}?mode=ro{immutable}"


def _check_file(path: pathlib.Path, application: int, version: int) -> int:
    """Returns the version of a file.

    Raises:
        StoreError: the file is damaged, empty, or of another application or a later version.
    """
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC))
    if not start:
        raise StoreError(
            f"{path} is empty; expected a store, which is never empty: restore it from a backup, or delete it to begin "
            "anew and pay again"
        )
    if start != _MAGIC:
        raise StoreError(f"{path}: not an SQLite file; expected a store; the file is unchanged")
    try:
        with contextlib.closing(sqlite3.connect(_readonly_uri(path), uri=True)) as connection:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            found_version = connection.execute("PRAGMA user_version").fetchone()[0]
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except (sqlite3.Error, UnicodeError, MemoryError) as error:
        raise StoreError(f"{path}: damaged ({printable(error, width=150)}); {ADVICE}") from error
    if found != application:
        raise StoreError(f"{path}: an SQLite file of another application; expected a store; the file is unchanged")
    if not 1 <= found_version <= version:
        raise StoreError(f"{path}: version is {found_version}; expected 1 to {version}; the file is unchanged")
    return int(found_version)
