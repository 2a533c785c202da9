"""One process at a time works in a folder; the second is told which process does.

A process locks the folder itself, with ``flock``, and writes a record into it: ``.lock`` names the process, its host
and the time. The kernel releases the first lock when the process ends, however it ends, and deleting the record does
not release it. File systems that have no such locks, and other hosts, see only the record. Its time of change is
renewed while the process lives, so that the record of a dead process grows old.
"""

import atexit
import contextlib
import dataclasses
import datetime
import errno
import fcntl
import functools
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

from alkd_jax.errors import writing

LOCK = ".lock"
"""The record in a folder, which names the process that works in it."""

RENEWAL_SECONDS = 30
STALE_SECONDS = 150
"""Age from which a record that another host wrote is taken to be that of a dead process."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that works in a folder, as its record names it.

    Attributes:
        process: its number.
        host: the name of its host.
        kernel: identifies the running kernel, below which process numbers and ``flock`` hold.
        since: when it began, in UTC.
    """

    process: int
    host: str
    kernel: str
    since: str


@dataclasses.dataclass(frozen=True)
class _Held:
    """A folder that this process has locked: its open descriptor and the text of its record."""

    descriptor: int
    record: str


_held: dict[tuple[int, pathlib.Path], _Held] = {}
_guard = threading.RLock()


def lock_folder(folder: pathlib.Path) -> bool:
    """Keeps other processes from working in a folder until this process ends, however it ends.

    Args:
        folder: an existing folder; this process may have locked it already.

    Returns:
        Whether this call took the lock; False where this process had it before.

    Raises:
        ValueError: another process has the lock, or this process may not write to the folder.
    """
    key = (os.getpid(), folder.resolve())
    with _guard:
        if (before := _held.get(key)) is not None:
            # A folder that was deleted and made again is another folder.
            if os.path.samestat(os.fstat(before.descriptor), folder.stat()):
                return False
            os.close(_held.pop(key).descriptor)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            has_flock = _flock(descriptor, folder)
            _held[key] = _Held(descriptor, _take_record(folder, has_flock=has_flock))
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                reason = os.strerror(error.errno).lower()
                raise ValueError(
                    f"{folder} cannot be written ({reason}); expected a folder to which this process may write"
                ) from error
            raise
        _start_renewal()
        return True


def unlock_folder(folder: pathlib.Path) -> None:
    """Lets other processes work in a folder that this process has locked."""
    _release((os.getpid(), folder.resolve()))


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks an existing folder, as :func:`lock_folder` does, until the block ends."""
    is_new = lock_folder(folder)
    try:
        yield
    finally:
        if is_new:
            unlock_folder(folder)


def _release(key: tuple[int, pathlib.Path]) -> None:
    """Deletes the record of this process in a folder, and then gives up the lock."""
    with _guard:
        held, lock = _held.pop(key), key[1] / LOCK
        try:
            with contextlib.suppress(OSError):
                if _text_of(lock) == held.record:
                    lock.unlink()
        finally:
            os.close(held.descriptor)


def _flock(descriptor: int, folder: pathlib.Path) -> bool:
    """Locks a folder's descriptor; returns False where its file system has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(folder, _read_record(folder / LOCK)) from None
    except OSError:
        # Network file systems answer EBADF, ENOLCK, ENOTSUP or ENOSYS.
        return False
    return True


def _take_record(folder: pathlib.Path, *, has_flock: bool) -> str:
    """Writes the record of this process, which replaces that of a dead one.

    Returns:
        The text of the record.

    Raises:
        ValueError: the process that the present record names is alive.
    """
    lock = folder / LOCK
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    mine = json.dumps(dataclasses.asdict(Holder(os.getpid(), socket.gethostname(), _kernel(), now))) + "\n"
    # Its time of change is the file system's own, which may differ from this host's clock.
    own = folder / f"{LOCK}.{socket.gethostname()}.{os.getpid()}.partial"
    try:
        with writing(lock):
            own.write_text(mine, encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            age = own.stat().st_mtime - lock.stat().st_mtime
            text, holder = _text_of(lock), _read_record(lock)
            if _is_alive(holder, age, has_flock=has_flock):
                raise _in_use(folder, holder, age)
            # Of several processes that found the record stale, one moves it away.
            lock.rename(own)
            if _text_of(own) != text:
                own.rename(lock)
                raise _in_use(folder, _read_record(lock))
        try:
            descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise _in_use(folder, _read_record(lock)) from None
        with writing(lock), open(descriptor, "w", encoding="utf-8") as file:
            file.write(mine)
    finally:
        own.unlink(missing_ok=True)
    return mine


def _is_alive(holder: Holder | None, age: float, *, has_flock: bool) -> bool:
    """Whether the process that a record names is alive, as far as can be seen.

    Args:
        holder: the record; None where it cannot be read, as while it is written.
        age: seconds since the record was renewed.
        has_flock: whether this process has the kernel's lock, which a living process below this kernel would have.
    """
    if holder is not None and holder.kernel == _kernel():
        return not has_flock and holder.process != os.getpid() and _process_exists(holder.process)
    return age < STALE_SECONDS and not (holder is None and has_flock)


def _process_exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(folder: pathlib.Path, holder: Holder | None, age: float | None = None) -> ValueError:
    """Returns the error of a folder in which another process works."""
    who = "another process"
    if holder is not None:
        who = f"process {holder.process} on {holder.host} since {holder.since}"
    choice = "wait until it ends, or choose another folder"
    if age is not None:
        choice += (
            f", or delete {LOCK} in it if that process is gone (it gave a sign of life {max(0, round(age))} s ago)"
        )
    return ValueError(f"{folder} is in use by {who}; {choice}")


def _read_record(lock: pathlib.Path) -> Holder | None:
    """Reads a record; None where it is missing, damaged or of an earlier version."""
    try:
        fields = json.loads(_text_of(lock))
        holder = Holder(int(fields["process"]), *(str(fields[name]) for name in ("host", "kernel", "since")))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return holder if holder.process > 0 and all(text.isprintable() for text in (holder.host, holder.since)) else None


def _text_of(lock: pathlib.Path) -> str:
    with lock.open("rb") as file:
        return file.read(1000).decode(errors="replace")


@functools.cache
def _kernel() -> str:
    """Returns what identifies the running kernel, on every host and in every container; else the host's name."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _start_renewal() -> None:
    """Starts the thread that renews the records of this process."""
    name = f"folder locks {os.getpid()}"
    if not any(thread.name == name for thread in threading.enumerate()):
        threading.Thread(target=_renew_for_ever, name=name, daemon=True).start()


def _renew_for_ever() -> None:
    while True:
        time.sleep(RENEWAL_SECONDS)
        renew_records()


def renew_records() -> None:
    """Renews the records of this process, and writes those again that were deleted."""
    with _guard:
        for (process, folder), held in _held.items():
            # A folder that was moved away, or belongs to the parent of a forked process, has no record to renew.
            with contextlib.suppress(OSError):
                if process == os.getpid() and os.path.samestat(os.fstat(held.descriptor), folder.stat()):
                    lock = folder / LOCK
                    if not lock.exists():
                        lock.write_text(held.record, encoding="utf-8")
                    elif _text_of(lock) == held.record:
                        os.utime(lock)


def _unlock_all() -> None:
    for key in list(_held):
        if key[0] == os.getpid():
            _release(key)


# So that another host need not wait until the record of a process that has ended grows old.
atexit.register(_unlock_all)
