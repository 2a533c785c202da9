"""The folder of a shipped student: it appears whole, and another one is replaced only where that was asked for."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from alkd_jax.io import move_into
from alkd_jax.locks import locked
from alkd_jax.serving import manifest


def check_target(path: pathlib.Path, *, overwrite: bool) -> None:
    """Refuses a path that a shipped student may not be written to.

    Raises:
        ValueError: something is there that is not to be overwritten, or is no shipped student.
    """
    if not path.exists():
        return
    if not overwrite:
        raise ValueError(f"{path} exists; expected a new folder, or leave to overwrite it (--overwrite)")
    try:
        manifest.read_config(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no shipped student ({error}); expected one to overwrite") from error


@contextlib.contextmanager
def new_folder(path: pathlib.Path, *, overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Yields a folder that appears at the path when the block ends without an error.

    One process at a time makes it; what a killed process left is removed. A student that is replaced stays until its
    successor is whole, and is put back if that cannot take its place.

    Args:
        path: of the folder.
        overwrite: whether a student that is there may be replaced.

    Raises:
        ValueError: the path exists and is not to be overwritten, or another process makes this folder.
    """
    work = path.with_name(f".{path.name}.partial")
    former = work / f"{path.name}.former"
    work.mkdir(parents=True, exist_ok=True)
    with locked(work):
        try:
            if not path.exists() and former.exists():
                former.rename(path)
            check_target(path, overwrite=overwrite)
            partial = work / path.name
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            move_into(path.parent, work, [path.name])
        finally:
            if not path.exists() and former.exists():
                former.rename(path)
            shutil.rmtree(work, ignore_errors=True)
