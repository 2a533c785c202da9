"""Text files read in blocks of complete lines and decoded to UTF-8.

The files come from outside and are not trusted: damage and overlong lines are errors, and bytes that are invalid in the
encoding are marked. A line ends in a line feed, with or without a carriage return before it; where the file has no line
feed, a carriage return alone ends a line.
"""

import codecs
from collections.abc import Iterator

from alkd_jax.data.text.source_files import TextFile
from alkd_jax.errors import shown

UNDECODABLE = "\ufdd0"
"""Stands for bytes that are invalid in the encoding; Unicode reserves it for such use within a program."""

_BLOCK_BYTES = 1 << 23
_HEAD_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 23
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MARK_ERRORS = "alkd_jax.undecodable"


def _mark(error: UnicodeError) -> tuple[str | bytes, int]:
    """Returns what stands for invalid bytes or for half a surrogate pair, and where to go on."""
    is_encoding = isinstance(error, UnicodeEncodeError)
    return UNDECODABLE.encode() if is_encoding else UNDECODABLE, getattr(error, "end", 0)


codecs.register_error(_MARK_ERRORS, _mark)


def read_blocks(file: TextFile, *, encoding: str = "utf-8", size: int = _BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """Reads a file in blocks of complete lines.

    Args:
        file: what to read.
        encoding: encoding of the file; bytes that are invalid in it become :data:`UNDECODABLE`.
        size: approximate number of bytes in a block.

    Yields:
        The line number of the block's first line, from 1, and the lines in UTF-8; each ends in a newline.

    Raises:
        ValueError: the encoding is unknown, or the file is damaged, is not text, or has a line of more than 8 MiB.
    """
    line, pending = 1, b""
    for chunk in _with_line_feeds(_decoded_chunks(file, encoding, size)):
        complete, newline, remainder = chunk.rpartition(b"\n")
        if newline:
            block, pending = pending + complete + newline, remainder
            yield line, block
            line += block.count(b"\n")
        else:
            pending += chunk
        if len(pending) > _MAX_LINE_BYTES:
            raise ValueError(f"{file}, line {line}: longer than {_MAX_LINE_BYTES:,} bytes; expected a text file")
    if pending:
        yield line, pending + b"\n"


def _chunks(file: TextFile, size: int) -> Iterator[bytes]:
    with file.open() as stream:
        while chunk := stream.read(size):
            yield chunk


def _decoded_chunks(file: TextFile, encoding: str, size: int) -> Iterator[bytes]:
    """Yields a file's chunks in UTF-8 without a byte order mark."""
    decoder = _make_decoder(encoding)
    extends_ascii = bytes(range(128)).decode(encoding, "replace") == "".join(map(chr, range(128)))
    is_first = True
    for chunk in _chunks(file, size):
        if is_first and extends_ascii:
            chunk = _strip_byte_order_mark(chunk, file)
        if extends_ascii and chunk.isascii() and not decoder.getstate()[0]:
            yield chunk
        else:
            text = _decode(decoder, chunk, file, encoding)
            # Some encodings have halves of surrogate pairs, which UTF-8 has not.
            yield (text.removeprefix("\ufeff") if is_first else text).encode(errors=_MARK_ERRORS)
        is_first = False
    yield _decode(decoder, b"", file, encoding, final=True).encode(errors=_MARK_ERRORS)


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, file: TextFile, encoding: str, *, final: bool = False
) -> str:
    """Decodes a chunk; some decoders raise for what the marks of invalid bytes cannot replace, as a missing mark."""
    try:
        return decoder.decode(chunk, final)
    except ValueError as error:
        raise ValueError(f"{file} is not in {encoding} ({error}); expected the encoding that it is in") from error


def _make_decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        # Some codecs fail only when they decode, and some do not give text.
        "user,item\n".encode(encoding).decode(encoding, _MARK_ERRORS).encode()
        return codecs.getincrementaldecoder(encoding)(_MARK_ERRORS)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"encoding is {shown(encoding)}; expected a name that Python knows, such as utf-8, utf-16 or iso-8859-1"
        ) from error


def _strip_byte_order_mark(chunk: bytes, file: TextFile) -> bytes:
    for mark, name in _BYTE_ORDER_MARKS.items():
        if chunk.startswith(mark):
            raise ValueError(f"{file} is in {name}; expected UTF-8, or the name of its encoding (--encoding {name})")
    return chunk.removeprefix(codecs.BOM_UTF8)


def _with_line_feeds(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Makes a line feed of every carriage return if there is no line feed in the first MiB of a file."""
    head = b""
    for chunk in chunks:
        head += chunk
        if b"\n" in head or len(head) > _HEAD_BYTES:
            break
    # A carriage return at the end may belong to a line feed that follows.
    has_no_line_feed = b"\n" not in head and b"\r" in head[:-1]
    yield head.replace(b"\r", b"\n") if has_no_line_feed else head
    for chunk in chunks:
        yield chunk.replace(b"\r", b"\n") if has_no_line_feed else chunk


def detect_encoding(file: TextFile) -> str:
    """Returns "utf-8" if the entire file is valid UTF-8, else "iso-8859-1", in which every byte is a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(file, _BLOCK_BYTES):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "iso-8859-1"
    return "utf-8"
