"""Text files read in blocks of complete lines and decoded to UTF-8.

The files come from outside and are not trusted: damage, other encodings and overlong lines are errors or replacements.
"""

import codecs
from collections.abc import Iterator

from alkd_jax.data.text.source_files import DECODE_ERRORS, TextFile

_BLOCK_BYTES = 1 << 24
_MAX_LINE_BYTES = 1 << 26


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
    except DECODE_ERRORS as error:
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
        except DECODE_ERRORS as error:
            raise ValueError(f"{file}: damaged or cut short: {error}") from error
    return "utf-8"
