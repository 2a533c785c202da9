"""Files that a user names: plain, compressed, in a folder or in an archive.

The files come from outside and are not trusted: a folder or an archive gives its own regular files only.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator

from alkd_jax.data import archives
from alkd_jax.data.compression import ENDINGS, decompressed
from alkd_jax.errors import printable, reading, shown

_UNDAMAGED = "a file that is neither damaged nor cut short"


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
        return printable(f"{self.path}/{self.member}" if self.member else self.path)

    @property
    def plain_name(self) -> str:
        """The name of the file without folders, and without the ending of its compression."""
        name = pathlib.PurePosixPath(archives.normalized(self.member) if self.member else self.path).name
        return name.removesuffix(next((ending for ending in ENDINGS if name.endswith(ending)), ""))

    @contextlib.contextmanager
    def open(self) -> Iterator[io.BufferedIOBase]:
        """Opens the file for reading; compressed content is decompressed while it is read.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or is packed in a way that Python does not read. Reading raises it too.
        """
        if not self.path.is_file():
            found = "is no regular file; expected one" if self.path.exists() else "no such file"
            raise FileNotFoundError(f"{self.path}: {found}")
        with reading(self, expected=_UNDAMAGED):
            with archives.open_member(self.path, self.member) if self.member else self.path.open("rb") as stream:
                yield decompressed(stream, self)


def find_file(root: str | os.PathLike[str], *names: str) -> TextFile:
    """Finds a file by its name in a folder, at any depth, or in an archive (zip, or tar with any compression of files).

    Args:
        root: a folder, an archive, or the file itself.
        *names: accepted names; the first one that exists is taken. Each may also have the ending of a compression.

    Returns:
        The file with the shortest path below the root.

    Raises:
        FileNotFoundError: no file has any of the names.
        ValueError: two files have the name at the same depth, the file is a link to something outside of the root, or
            the archive is damaged.
    """
    root = pathlib.Path(root)
    accepted = [name + ending for name in names for ending in ("", *ENDINGS)]
    if root.is_file() and root.name in accepted:
        return TextFile(root)
    if root.is_dir():
        written = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()]
        members = [archives.Member(path) for path in written]
    elif root.is_file():
        members = archives.list_members(root)
    else:
        raise FileNotFoundError(f"{root}: no such file or folder")
    for name in accepted:
        matches = [member for member in members if pathlib.PurePosixPath(archives.normalized(member.name)).name == name]
        if matches:
            match = _shallowest(matches, root)
            if root.is_dir():
                return TextFile(file_below(root, match.name))
            by_name = {archives.normalized(member.name): member for member in members}
            return TextFile(root, archives.follow(match, by_name, root).name)
    raise FileNotFoundError(f"{root} has no {' or '.join(names)}")


def file_or_member(path: str | os.PathLike[str], *names: str) -> TextFile:
    """Returns a file of any name, or finds one by its name in a folder or an archive.

    Args:
        path: the file, or a folder or an archive (``.zip``, ``.tar``, ``.tar.gz``, …) that has it.
        *names: accepted names in a folder or an archive, as in :func:`find_file`.

    Raises:
        FileNotFoundError: no file has any of the names.
        ValueError: as in :func:`find_file`.
    """
    path = pathlib.Path(path)
    is_archive = path.suffix in (".zip", ".tar", ".tgz") or ".tar" in path.suffixes[-2:]
    return find_file(path, *names) if path.is_dir() or is_archive else TextFile(path)


def _shallowest(matches: list[archives.Member], root: pathlib.Path) -> archives.Member:
    def depth(member: archives.Member) -> int:
        return archives.normalized(member.name).count("/")

    first, *others = sorted(matches, key=lambda member: (depth(member), member.name))
    if others and depth(others[0]) == depth(first):
        raise ValueError(
            f"{root} has both {shown(first.name)} and {shown(others[0].name)}; expected one file of this name; "
            "name the file or its folder itself"
        )
    return first


def file_below(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns a file of a folder after checking that no link leads from it to another place.

    Args:
        folder: the folder that a user named, which may be a link itself.
        name: path of the file below the folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a link to something outside of the folder.
    """
    file = folder / name
    if file.is_symlink() or file.exists():
        target = pathlib.Path(os.path.realpath(file))
        if not target.is_relative_to(folder.resolve()) or not target.is_file():
            raise ValueError(f"{printable(file)} leads to {printable(target)}; expected a regular file in the folder")
    else:
        raise FileNotFoundError(f"{file}: no such file")
    return file
