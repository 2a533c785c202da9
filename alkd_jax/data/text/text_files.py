"""Text files, plain, gzipped or in an archive, read in blocks of complete lines and decoded to UTF-8.

The files come from outside and are not trusted: damage, other encodings and overlong lines are errors or replacements.
"""

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

_BLOCK_BYTES = 1 << 24
_MAX_LINE_BYTES = 1 << 26
_DECODE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file, or a member of an archive.

    Attributes:
        path: the file or the archive.
        member: name within the archive; empty for a plain file.
    """

    path: pathlib.Path
    member: str = ""

    def __str__(self) -> str:
        """Returns the name used in error messages."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens the file for reading; gzipped content is decompressed while it is read.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with contextlib.ExitStack() as stack:
            if not self.path.is_file():
                raise FileNotFoundError(f"{self.path}: no such file")
            if not self.member:
                raw: IO[bytes] = stack.enter_context(self.path.open("rb"))
            elif zipfile.is_zipfile(self.path):
                raw = stack.enter_context(stack.enter_context(zipfile.ZipFile(self.path)).open(self.member))
            else:
                raw = _open_tar_member(stack.enter_context(tarfile.open(self.path)), self)
            if raw.read(2) == b"\x1f\x8b":
                raw.seek(0)
                yield cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
            else:
                raw.seek(0)
                yield raw


def _open_tar_member(archive: tarfile.TarFile, file: TextFile) -> IO[bytes]:
    member = archive.extractfile(file.member)
    if member is None:
        raise ValueError(f"{file} is not a regular file; expected a file in the archive")
    return member


def find_file(root: str | os.PathLike[str], *names: str) -> TextFile:
    """Finds a file by its name in a folder, at any depth, or in an archive (zip, tar, tar.gz).

    Args:
        root: a folder, an archive, or the file itself.
        *names: accepted names; the first one that exists is taken. Each may also end in ``.gz``.

    Returns:
        The file with the shortest path below the root.

    Raises:
        FileNotFoundError: no file has any of the names.
        ValueError: the archive is damaged.
    """
    root = pathlib.Path(root)
    accepted = [name + ending for name in names for ending in ("", ".gz")]
    if root.is_dir():
        paths = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    elif root.is_file() and root.name in accepted:
        return TextFile(root)
    elif root.is_file():
        paths = _member_names(root)
    else:
        raise FileNotFoundError(f"{root}: no such file or folder")
    for name in accepted:
        matches = sorted(
            (path for path in paths if pathlib.PurePath(path).name == name), key=lambda p: (p.count("/"), p)
        )
        if matches:
            return TextFile(root / matches[0]) if root.is_dir() else TextFile(root, matches[0])
    raise FileNotFoundError(f"{root} has no {' or '.join(names)}")


def _member_names(archive: pathlib.Path) -> list[str]:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                return zipped.namelist()
        with tarfile.open(archive) as tarred:
            return tarred.getnames()
    except _DECODE_ERRORS as error:
        raise ValueError(f"{archive}: neither a folder nor a readable zip or tar archive: {error}") from error


def read_blocks(file: TextFile, *, encoding: str = "utf-8", size: int = _BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Reads a file in blocks of complete lines.

    Args:
        file: what to read.
        encoding: encoding of the file; bytes that are invalid in it become U+FFFD.
        size: approximate number of bytes in a block.

    Yields:
        The line number of the block's first line, from 1, and the lines in UTF-8; the last one ends in a newline.

    Raises:
        ValueError: the file is damaged, is not text, or has a line of more than 64 MiB.
    """
    line, pending, bytes_read = 1, b"", 0
    try:
        with file.open() as stream:
            while chunk := stream.read(size):
                if bytes_read == 0:
                    chunk = _strip_byte_order_mark(chunk, file)
                bytes_read += len(chunk)
                complete, newline, remainder = chunk.rpartition(b"\n")
                if not newline:
                    pending += chunk
                    if len(pending) > _MAX_LINE_BYTES:
                        raise ValueError(
                            f"{file}, line {line}: longer than {_MAX_LINE_BYTES} bytes; expected a text file"
                        )
                    continue
                block, pending = pending + complete + newline, remainder
                yield line, _to_utf8(block, encoding)
                line += block.count(b"\n")
    except _DECODE_ERRORS as error:
        raise ValueError(f"{file}: damaged or cut short after {bytes_read:,} bytes: {error}") from error
    if pending:
        yield line, _to_utf8(pending + b"\n", encoding)


def _strip_byte_order_mark(chunk: bytes, file: TextFile) -> bytes:
    if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{file} is in UTF-16; expected UTF-8 or a one-byte encoding")
    return chunk.removeprefix(codecs.BOM_UTF8)


def _to_utf8(block: bytes, encoding: str) -> bytes:
    return block if block.isascii() else block.decode(encoding, "replace").encode()


def detect_encoding(file: TextFile) -> str:
    """Returns "utf-8" if the entire file is valid UTF-8, else "iso-8859-1", in which every byte is a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with file.open() as stream:
        try:
            while chunk := stream.read(_BLOCK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "iso-8859-1"
        except _DECODE_ERRORS as error:
            raise ValueError(f"{file}: damaged or cut short: {error}") from error
    return "utf-8"
