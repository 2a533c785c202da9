"""Text files from outside, plain, gzipped or in an archive, in blocks of whole lines as UTF-8."""

import codecs
import contextlib
import dataclasses
import gzip
import os
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

_BLOCK = 1 << 24
_LONGEST_LINE = 1 << 26
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file, or a file in an archive.

    Attributes:
        path: of the file or the archive.
        member: name in the archive; empty for a file.
    """

    path: pathlib.Path
    member: str = ""

    def __str__(self) -> str:
        """What errors call it."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading; what is gzipped is unpacked on the way.

        Raises:
            FileNotFoundError: no such file.
        """
        with contextlib.ExitStack() as stack:
            if not self.path.is_file():
                raise FileNotFoundError(f"{self.path}: no such file")
            if not self.member:
                raw: IO[bytes] = stack.enter_context(self.path.open("rb"))
            elif zipfile.is_zipfile(self.path):
                raw = stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))
            else:
                raw = _tar_member(stack.enter_context(tarfile.open(self.path)), self)
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
            else:
                raw.seek(0)
                yield raw


def _tar_member(archive: tarfile.TarFile, file: TextFile) -> IO[bytes]:
    member = archive.extractfile(file.member)
    if member is None:
        raise ValueError(f"{file}: not a plain file")
    return member


def find(root: str | os.PathLike[str], *names: str) -> TextFile:
    """Find a file by its name in a folder, at any depth, or in an archive (zip, tar, tar.gz).

    Args:
        root: folder, archive, or the file itself.
        *names: accepted names, the first that is there wins; each also with ``.gz`` behind it.

    Returns:
        The file nearest to the root.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: the archive is damaged.
    """
    root = pathlib.Path(root)
    accepted = [name + ending for name in names for ending in ("", ".gz")]
    if root.is_dir():
        there = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    elif root.is_file() and root.name in accepted:
        return TextFile(root)
    elif root.is_file():
        there = _members(root)
    else:
        raise FileNotFoundError(f"{root}: no such file or folder")
    for name in accepted:
        found = sorted((path for path in there if pathlib.PurePath(path).name == name), key=lambda p: (p.count("/"), p))
        if found:
            return TextFile(root / found[0]) if root.is_dir() else TextFile(root, found[0])
    raise FileNotFoundError(f"{root}: has no {' or '.join(names)}")


def _members(archive: pathlib.Path) -> list[str]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                return zipped.namelist()
        with tarfile.open(archive) as tarred:
            return tarred.getnames()
    except _DAMAGE as error:
        raise ValueError(f"{archive}: neither a folder nor a readable zip or tar archive: {error}") from error


def blocks(file: TextFile, *, encoding: str = "utf-8", size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """Read a file in blocks of whole lines.

    Args:
        file: what to read.
        encoding: of the file; bytes that it does not have become U+FFFD.
        size: bytes a block, about.

    Yields:
        The number of the block's first line, from 1, and its lines as UTF-8, the last with its line end.

    Raises:
        ValueError: the file is damaged, not text, or has a line of more than 64 MiB.
    """
    line, rest, read = 1, b"", 0
    try:
        with file.open() as stream:
            while chunk := stream.read(size):
                if read == 0:
                    chunk = _without_mark(chunk, file)
                read += len(chunk)
                whole, end, left = chunk.rpartition(b"\n")
                if not end:
                    rest += chunk
                    if len(rest) > _LONGEST_LINE:
                        raise ValueError(f"{file}, line {line}: more than {_LONGEST_LINE} bytes, not a text file")
                    continue
                block, rest = rest + whole + end, left
                yield line, _as_utf8(block, encoding)
                line += block.count(b"\n")
    except _DAMAGE as error:
        raise ValueError(f"{file}: damaged or cut short after {read:,} bytes: {error}") from error
    if rest:
        yield line, _as_utf8(rest + b"\n", encoding)


def _without_mark(chunk: bytes, file: TextFile) -> bytes:
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{file}: UTF-16, expected UTF-8 or a one-byte encoding")
    return chunk.removeprefix(codecs.BOM_UTF8)


def _as_utf8(block: bytes, encoding: str) -> bytes:
    return block if block.isascii() else block.decode(encoding, "replace").encode()


def encoding_of(file: TextFile) -> str:
    """Tell UTF-8 from ISO-8859-1, in which every byte is a letter: only a whole file of valid UTF-8 is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.open() as stream:
        try:
            while chunk := stream.read(_BLOCK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "iso-8859-1"
        except _DAMAGE as error:
            raise ValueError(f"{file}: damaged or cut short: {error}") from error
    return "utf-8"
