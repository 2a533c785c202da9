"""Files that a user names: plain, gzipped, in a folder or in an archive.

The files come from outside and are not trusted.
"""

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

DECODE_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError)


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
    except DECODE_ERRORS as error:
        raise ValueError(f"{archive}: neither a folder nor a readable zip or tar archive: {error}") from error
