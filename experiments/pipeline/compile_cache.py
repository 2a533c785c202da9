"""Stores the programs that JAX compiles in the user's cache folder; only the first run of a command compiles them."""

import contextlib
import hashlib
import os
import pathlib
import sys
import zlib

import jax

from alkd_jax.io import read_object, write_json

DIGESTS_FILE = "digests.json"
"""The file in the folder that names the SHA-256 of every entry which was found to be whole."""


def default_folder() -> pathlib.Path | None:
    """Returns this package's folder in the user's cache folder, by the rules of the operating system.

    None for a user without a home folder, as in some containers.
    """
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = pathlib.Path.home() / "Library" / "Caches"
        else:
            base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:
        return None
    return pathlib.Path(base) / "alkd_jax" / "compiled"


def is_command() -> bool:
    """Returns whether this process runs one of this package's commands, and not a user's script or a test."""
    package = __name__.rsplit(".", 2)[0]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith(f"{package}.")


def enable() -> None:
    """Enables JAX's persistent compilation cache in a command, unless one of JAX's own variables is set.

    `JAX_ENABLE_COMPILATION_CACHE=false` disables the cache, `JAX_COMPILATION_CACHE_DIR` moves it.
    """
    set_by_user = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys()
    folder = default_folder()
    if set_by_user or not is_command() or folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_damaged(folder)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX does not store what compiles within a second, which here is most programs.
    for name, value in (("min_compile_time_secs", 0.1), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{name}".upper() not in os.environ:
            jax.config.update(f"jax_persistent_cache_{name}", value)


def remove_damaged(folder: pathlib.Path) -> None:
    """Deletes the damaged entries of a cache; JAX would report them at every run and never replace them.

    An entry that is seen for the first time is checked by its compression, because a process that is killed leaves half
    of one, and afterwards by its digest, because not every compression notices a changed bit.

    Args:
        folder: of the cache.
    """
    file, known = folder / DIGESTS_FILE, {}
    with contextlib.suppress(ValueError, FileNotFoundError):
        known = read_object(file)
    found = {}
    for entry in folder.glob("*-cache"):
        # Another process may delete an entry meanwhile.
        with contextlib.suppress(FileNotFoundError):
            data = entry.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if digest == known.get(entry.name) or (entry.name not in known and _is_whole(data)):
                found[entry.name] = digest
            else:
                entry.unlink()
    if found != known:
        write_json(file, found)


def _is_whole(data: bytes) -> bool:
    """Whether an entry can be decompressed; other compressions than zlib are not checked."""
    is_zlib = data[:1] == b"\x78"
    with contextlib.suppress(zlib.error):
        return bool(zlib.decompress(data) if is_zlib else data.strip(b"\0"))
    return False
