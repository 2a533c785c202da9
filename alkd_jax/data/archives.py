"""Members of zip and tar archives from outside, listed and read in constant memory; nothing is unpacked to the disk.

An archive is untrusted: its headers, the number of its members and the memory of its decoders are bounded, and members
that share bytes, are encrypted, or are packed in a way that Python does not read are refused by name.
"""

import contextlib
import dataclasses
import io
import itertools
import pathlib
import posixpath
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, cast

from alkd_jax.data.compression import decompressed
from alkd_jax.errors import reading, shown

_MAX_MEMBERS = 10_000
_MAX_HEADER_BYTES = 1 << 16
_READ_BYTES = 1 << 16
_MAX_LINKS = 8
_MAX_DICTIONARY = 1 << 26
_SMALL_READ = 1 << 6  # the most that a block of bzip2 makes of fewer bytes is 46 MB
_MAX_TARGET_BYTES = 1 << 12
_ENCRYPTED = 0x1
_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "LZMA",
}
_OTHER_METHODS = {
    1: "shrink",
    6: "implode",
    9: "deflate64",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
    99: "AES encryption",
}


@dataclasses.dataclass(frozen=True)
class Member:
    """A regular file or a link in an archive.

    Attributes:
        name: the name as it is written in the archive.
        target: of a link, the name it leads to, from the archive's root; None for a regular file.
    """

    name: str
    target: str | None = None


def list_members(path: pathlib.Path) -> list[Member]:
    """Lists the files and links of a zip or tar archive, the latter also compressed by gzip, bzip2 or xz.

    Args:
        path: the archive.

    Raises:
        ValueError: it is no such archive, is damaged, or is larger than a source of data has reason to be.
    """
    with reading(path, expected="a folder, or a zip or tar archive that is not damaged"):
        if is_zip(path):
            with zipfile.ZipFile(path) as archive:
                return [_zip_member(archive, entry) for entry in zip_entries(archive, path) if not entry.is_dir()]
        with _open_tar(path) as (_, members):
            return [_tar_member(member) for member in members if member.isreg() or member.issym() or member.islnk()]


@contextlib.contextmanager
def open_member(path: pathlib.Path, name: str) -> Iterator[io.BufferedIOBase]:
    """Opens a regular file in an archive.

    Args:
        path: the archive.
        name: the name as :func:`list_members` returns it; links are followed by :func:`follow`.

    Raises:
        ValueError: there is no such file, or it is encrypted or packed in a way that Python does not read.
    """
    if is_zip(path):
        with zipfile.ZipFile(path) as archive:
            with _open_zip_member(archive, archive.getinfo(name)) as stream:
                yield stream
        return
    with _open_tar(path) as (archive, members):
        for member in members:
            if member.name == name and (content := archive.extractfile(member)) is not None:
                # The limit is one of headers.
                cast(_Headers, archive.fileobj).limit = None
                yield cast(io.BufferedIOBase, content)
                return
    raise ValueError(f"{path} has no file {shown(name)}; expected one")


def normalized(name: str) -> str:
    """Returns the name of a member from the archive's root, without ``.``, ``..`` and backslashes."""
    return posixpath.normpath(name.replace("\\", "/"))


def follow(member: Member, members: dict[str, Member], path: pathlib.Path) -> Member:
    """Follows links to a regular file of the same archive.

    Args:
        member: a file or a link.
        members: normalized name → member.
        path: the archive, in error messages.

    Raises:
        ValueError: the link leads out of the archive, to nothing, or in a circle.
    """
    found: Member | None = member
    for _ in range(_MAX_LINKS):
        if found is None or found.target is None:
            break
        found = members.get(found.target)
    if found is None or found.target is not None:
        raise ValueError(
            f"{path}: {shown(member.name)} is a link to {shown(member.target)}; expected a file or a link to a file in "
            "the archive"
        )
    return found


def is_zip(path: pathlib.Path) -> bool:
    """Whether a file is a zip archive; a tar archive may end in one."""
    with path.open("rb") as file:
        head = file.read(262)
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or (not head.endswith(b"ustar") and zipfile.is_zipfile(path))


def zip_entries(archive: zipfile.ZipFile, path: pathlib.Path) -> list[zipfile.ZipInfo]:
    """Returns the entries of a zip archive after checking that no two share bytes.

    Raises:
        ValueError: there are too many entries, or two overlap.
    """
    entries = archive.infolist()
    _check_count(len(entries), path)
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in itertools.pairwise(ordered):
        if entry.header_offset + _local_header_bytes(entry) + entry.compress_size > following.header_offset:
            raise ValueError(
                f"{path}: {shown(entry.filename)} and {shown(following.filename)} overlap; "
                "expected members with bytes of their own"
            )
    return entries


def _local_header_bytes(entry: zipfile.ZipInfo) -> int:
    # The fields that are named twice may differ in their extra data only.
    return 30 + len(entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"))


def _check_count(count: int, path: pathlib.Path) -> None:
    if count > _MAX_MEMBERS:
        raise ValueError(f"{path} has {count} members or more; expected at most {_MAX_MEMBERS}")


def _zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
    if not stat.S_ISLNK(entry.external_attr >> 16):
        return Member(entry.filename)
    with _open_zip_member(archive, entry) as stream:
        target = stream.read(_MAX_TARGET_BYTES).decode("utf-8", "replace")
    return Member(entry.filename, normalized(posixpath.join(posixpath.dirname(entry.filename), target)))


@contextlib.contextmanager
def _open_zip_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[io.BufferedIOBase]:
    name = f"{archive.filename}: {shown(entry.filename)}"
    if entry.flag_bits & _ENCRYPTED or entry.compress_type == 99:
        raise ValueError(f"{name} is encrypted; expected a file without a password; unpack the archive first")
    if entry.compress_type not in _METHODS:
        method = _OTHER_METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        raise ValueError(
            f"{name} is compressed by {method}; expected {', '.join(_METHODS.values())}; unpack the archive first"
        )
    if entry.compress_type == zipfile.ZIP_LZMA and (size := _dictionary_bytes(archive, entry)) > _MAX_DICTIONARY:
        raise ValueError(f"{name} needs {size} bytes to be decompressed; expected at most {_MAX_DICTIONARY}")
    with cast(zipfile.ZipExtFile, archive.open(entry)) as stream:
        if entry.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            stream.MIN_READ_SIZE = _SMALL_READ
            yield io.BufferedReader(_SmallReads(stream))
        else:
            yield stream


def _dictionary_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """Returns the size of the dictionary that the data of an LZMA entry asks for."""
    with pathlib.Path(str(archive.filename)).open("rb") as file:
        file.seek(entry.header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), io.SEEK_CUR)
        return int(struct.unpack("<5xI", file.read(9))[0])


class _SmallReads(io.RawIOBase):
    """Reads a member of a zip archive in small parts, because its decoder expands all of a part at once."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Fills a buffer in part; 0 at the end."""
        data = self._stream.read(min(len(buffer), _SMALL_READ))
        buffer[: len(data)] = data
        return len(data)


class _Headers(io.RawIOBase):
    """A tar archive whose headers must be of a usual size, each and together."""

    def __init__(self, stream: io.BufferedIOBase, path: pathlib.Path) -> None:
        self._stream, self._path, self.last = stream, path, b""
        self.limit: int | None = _MAX_HEADER_BYTES
        self._left = _MAX_MEMBERS * 4 * tarfile.BLOCKSIZE

    def read(self, size: int | None = -1) -> bytes:
        """Reads at most ``size`` bytes."""
        if self.limit is None:
            return self._stream.read(-1 if size is None else size)
        if size is None or not 0 <= size <= self.limit or size > self._left:
            at_most = min(self.limit, self._left)
            raise ValueError(f"{self._path}: the headers have {size} bytes more; expected at most {at_most}")
        self._left -= size
        self.last = self._stream.read(size)
        return self.last

    def drain(self) -> None:
        """Reads to the end of the file, where gzip has the checksum of all of it."""
        while self._stream.read(_READ_BYTES):
            pass

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


@contextlib.contextmanager
def _open_tar(path: pathlib.Path) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """Yields an open archive and its members, in the order of the file."""
    with contextlib.ExitStack() as stack:
        headers = _Headers(decompressed(stack.enter_context(path.open("rb")), path), path)
        archive = stack.enter_context(tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:"))
        yield archive, _tar_members(archive, headers, path)


def _tar_members(archive: tarfile.TarFile, headers: _Headers, path: pathlib.Path) -> Iterator[tarfile.TarInfo]:
    count = 0
    while (member := archive.next()) is not None:
        count += 1
        _check_count(count, path)
        # The archive keeps every member otherwise.
        archive.members = []  # type: ignore[attr-defined]
        yield member
    # The library ends without a word at a header that is damaged.
    if headers.last.strip(b"\0"):
        raise ValueError(f"{path}: the header after {count} members is damaged; expected a tar archive's")
    headers.drain()


def _tar_member(member: tarfile.TarInfo) -> Member:
    if member.isreg():
        return Member(member.name)
    folder = posixpath.dirname(member.name) if member.issym() else ""
    return Member(member.name, normalized(posixpath.join(folder, member.linkname)))
