"""SHA-256 of every file of a folder, stored in the folder, by which damage is found when it is read again."""

import concurrent.futures
import pathlib

from alkd_jax.errors import reading, shown
from alkd_jax.io import read_json, sha256_of, write_json

DIGESTS = "digests.json"
"""The file that holds path → SHA-256 of the other files of its folder."""


def write_digests(folder: pathlib.Path, *, without: str = "") -> None:
    """Stores the digests of the files that a folder, with its sub-folders, holds now.

    Args:
        folder: the folder.
        without: name of a file that may still change.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != without]
    files = sorted(path.relative_to(folder).as_posix() for path in paths)
    write_json(folder / DIGESTS, dict(zip(files, _digests(folder, files), strict=True)))


def check_digests(folder: pathlib.Path) -> bool:
    """Compares the files of a folder with their digests; files that were added later are not looked at.

    Returns:
        Whether the folder has digests; those of earlier versions have none.

    Raises:
        ValueError: a file is damaged or missing; the error names it.
    """
    file = folder / DIGESTS
    if not file.exists():
        return False
    with reading(file):
        stored = read_json(file)
    if not isinstance(stored, dict) or not all(_is_inside(name) for name in stored):
        raise ValueError(f"{file} is {shown(stored)}; expected the names of files and their SHA-256")
    for name in stored:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name} is missing; expected the file that was saved")
    for name, digest in zip(stored, _digests(folder, list(stored)), strict=True):
        if digest != stored[name]:
            raise ValueError(f"{folder / name} is damaged: its SHA-256 is not the one in {DIGESTS}")
    return True


def _digests(folder: pathlib.Path, files: list[str]) -> list[str]:
    # Hashing leaves Python's lock to other threads, and a large state has a file for each of its arrays.
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return list(threads.map(lambda name: sha256_of(folder / name), files))


def _is_inside(name: str) -> bool:
    path = pathlib.PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
