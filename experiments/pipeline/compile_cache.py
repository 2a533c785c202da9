"""Stores the programs that JAX compiles in the user's cache folder; only the first run of a command compiles them."""

import os
import pathlib
import sys

import jax


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
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # By default JAX does not store what compiles within a second, which here is most programs.
    for name, value in (("min_compile_time_secs", 0.1), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{name}".upper() not in os.environ:
            jax.config.update(f"jax_persistent_cache_{name}", value)
