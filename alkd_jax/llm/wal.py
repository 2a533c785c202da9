"""Damage in SQLite's write-ahead log, which SQLite itself takes for the end of the log.

A process that was killed leaves transactions in the log. SQLite stops reading it at the first frame whose checksum is
wrong, so that one damaged byte would silently undo every transaction after it.

Reference:
    https://www.sqlite.org/fileformat2.html#walformat
"""

import struct

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = 0x377F0682


def has_lost_transactions(log: bytes) -> bool:
    """Returns whether damage hides transactions of a log that were complete on the disk.

    The last transaction may always be cut off, as by a loss of power. One that others follow was complete, because
    each is flushed to the disk before the next begins.

    Args:
        log: the content of the file, which no process is writing.
    """
    if len(log) <= _HEADER:
        return False
    magic, _, page_size, _ = struct.unpack(">4I", log[:16])
    size = _FRAME_HEADER + page_size
    order = "<" if magic == _MAGIC else ">"
    checksum = _checksum(log[:24], (0, 0), order)
    if magic & ~1 != _MAGIC or checksum != struct.unpack(">2I", log[24:32]):
        return True
    frames = [log[start : start + size] for start in range(_HEADER, len(log) - size + 1, size)]
    for number, frame in enumerate(frames):
        checksum = _checksum(frame[_FRAME_HEADER:], _checksum(frame[:8], checksum, order), order)
        if frame[8:16] != log[16:24] or checksum != struct.unpack(">2I", frame[16:24]):
            return _holds_whole_transaction(frames[number:], log[16:24])
    return False


def _holds_whole_transaction(frames: list[bytes], salt: bytes) -> bool:
    """Returns whether a frame of this log that ends a transaction is followed by another one of this log."""
    # Frames with another salt are left from before the log was begun anew.
    ends = [frame[4:8] != bytes(4) for frame in frames if frame[8:16] == salt]
    return any(ends[:-1])


def _checksum(data: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    """Continues the checksum of a log over a multiple of eight bytes."""
    first, second = before
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for number in range(0, len(words), 2):
        first = (first + words[number] + second) & 0xFFFFFFFF
        second = (second + words[number + 1] + first) & 0xFFFFFFFF
    return first, second
