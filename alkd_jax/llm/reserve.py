"""Space on the disk that is taken before requests are sent, for answers that the store cannot record any more.

An answer is paid for once its request is sent. Where the disk is full when it comes, or the store cannot be written for
another reason, it is written here instead, and the next process that opens the store moves it there.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from alkd_jax.llm.schema import row_digest


class Reserve:
    """A file beside a store, which exists while requests are in flight and while it holds answers.

    Attributes:
        path: the file.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._used = 0

    def allocate(self, num_bytes: int) -> None:
        """Takes space on the disk.

        Args:
            num_bytes: as much as the answers in flight can need.

        Raises:
            OSError: there is not as much space.
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, num_bytes)
            else:
                os.pwrite(descriptor, bytes(num_bytes), 0)
            os.fsync(descriptor)
        except OSError as error:
            self.path.unlink()
            # The call above knows no file name, which the message to the user needs.
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        finally:
            os.close(descriptor)

    def write(self, values: Mapping[str, Any]) -> None:
        """Writes the values of an answer; they are on the disk when this returns.

        Args:
            values: plain JSON values.
        """
        text = json.dumps(dict(values), ensure_ascii=False)
        line = f"{row_digest(text).hex()} {text}\n".encode()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, line, self._used)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._used += len(line)

    def read(self) -> Iterator[dict[str, Any]]:
        """Yields what was written, until the first line that was not written to its end."""
        if not self.path.exists():
            return
        for line in self.path.read_bytes().split(b"\n"):
            digest, _, text = line.decode("utf-8", "replace").partition(" ")
            if digest != row_digest(text).hex():
                return
            yield json.loads(text)

    def clear(self) -> None:
        """Gives the space back, and forgets what was written."""
        self.path.unlink(missing_ok=True)
        self._used = 0
