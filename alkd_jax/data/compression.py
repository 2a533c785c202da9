"""Compressed files, read in constant memory: gzip, bzip2 and xz; other formats are refused by name.

A file may consist of several compressed streams, as parallel compressors write them, with zeros after the last one.
Anything else after it is refused, because it may be a damaged stream.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Mapping
from typing import TypeAlias, cast

from alkd_jax.errors import printable

ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".Z", ".zip", ".7z", ".rar")
"""Endings of the names of compressed files; those after ``.xz`` are refused when the file is opened."""

_REFUSED: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"\xff\x06\x00\x00sNaPpY": "compressed by Snappy",
    b"\x5d\x00\x00": "compressed by LZMA in its old format",
    b"LZIP\x01": "compressed by lzip",
    b"\x89LZO\x00": "compressed by lzop",
    b"\x1f\x9d": "compressed by compress",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
}
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
_XZ_MEMORY = 1 << 27  # the largest preset needs 65 MiB
_READ_BYTES = 1 << 14
_HEAD_BYTES = 10

_Decoder: TypeAlias = bz2.BZ2Decompressor | lzma.LZMADecompressor


class _Streams(io.RawIOBase):
    """The content of one or more streams; the standard library would ignore a damaged one after the first."""

    def __init__(self, compressed: io.BufferedIOBase, decoder: Callable[[], _Decoder], name: object) -> None:
        self._compressed, self._new_decoder, self._decoder = compressed, decoder, decoder()
        self._name, self._position = name, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes forward only."""
        end = offset + (self._position if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or end < self._position:
            raise io.UnsupportedOperation("compressed data are read forward only")
        while self._position < end and self.read(min(end - self._position, _READ_BYTES)):
            pass
        return self._position

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Fills a buffer in part; 0 at the end."""
        while True:
            chunk = b""
            if self._decoder.eof:
                chunk = self._decoder.unused_data or self._compressed.read(_READ_BYTES)
                while chunk and not (chunk := chunk.lstrip(b"\0")):
                    chunk = self._compressed.read(_READ_BYTES)
                if not chunk:
                    return 0
                self._decoder = self._new_decoder()
            elif self._decoder.needs_input and not (chunk := self._compressed.read(_READ_BYTES)):
                raise ValueError(f"{printable(self._name)} ends within its compressed data; expected a complete file")
            if data := self._decoder.decompress(chunk, len(buffer)):
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)


def decompressed(stream: io.BufferedIOBase, name: object) -> io.BufferedIOBase:
    """Returns the content of a file: decompressed if its first bytes say that it is compressed, and else as it is.

    Args:
        stream: the buffered file at its start.
        name: name of the file in error messages.

    Raises:
        ValueError: the file is in a format that the standard library of Python 3.11 does not read, or is an archive.
    """
    head = cast(io.BufferedReader, stream).peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return io.BufferedReader(_Streams(stream, bz2.BZ2Decompressor, name))
    if head.startswith(b"\xfd7zXZ\x00"):
        return io.BufferedReader(
            _Streams(stream, lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), name)
        )
    if (kind := next((kind for start, kind in _REFUSED.items() if head.startswith(start)), None)) is not None:
        raise ValueError(
            f"{printable(name)} is {kind}; expected a file that is plain or compressed by gzip, bzip2 or xz; "
            "unpack it first"
        )
    return stream
