"""Profiles of commands and benchmarks by JAX's profiler; without JAX where none is asked for."""

import contextlib
import pathlib
from typing import Any


def profiling(folder: pathlib.Path | None) -> contextlib.AbstractContextManager[Any]:
    """Returns a context whose work JAX's profiler records.

    Args:
        folder: for the profile, which TensorBoard and XProf show; None records nothing.

    Raises:
        ValueError: the folder is a file.
    """
    if folder is None:
        return contextlib.nullcontext()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--profile is {folder}, which is a file; expected a folder")
    import jax

    return jax.profiler.trace(folder)
