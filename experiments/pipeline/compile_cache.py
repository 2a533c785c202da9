"""What JAX has compiled is kept from one command to the next, so that only a first run waits for it."""

import os
import pathlib
import sys

import jax


def default_folder() -> pathlib.Path:
    """Where this user's caches lie on this system, and in it ours."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "alkd_jax" / "compiled"


def is_command() -> bool:
    """Whether this process is one of this project's commands, and not somebody's script or a test."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name.startswith("experiments.")


def turn_on() -> None:
    """Turns JAX's persistent cache on, in a command, unless one of JAX's own variables says where or whether.

    `JAX_ENABLE_COMPILATION_CACHE=false` turns it off, `JAX_COMPILATION_CACHE_DIR` moves it.
    """
    asked = {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & os.environ.keys()
    if asked or not is_command():
        return
    jax.config.update("jax_compilation_cache_dir", str(default_folder()))
    # By default JAX leaves out what compiles within a second, which here is most programs.
    for name, value in (("min_compile_time_secs", 0.1), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{name}".upper() not in os.environ:
            jax.config.update(f"jax_persistent_cache_{name}", value)
