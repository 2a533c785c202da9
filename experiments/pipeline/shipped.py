"""Where the shipped model of a folder is, without JAX."""

import pathlib

from alkd_jax.errors import shown
from alkd_jax.io import read_object

from .run_folder import IDENTITY_FILE

STUDENT = "student"
"""The folder of the shipped model in a run of `experiments.train`."""


def model_folder(path: pathlib.Path) -> pathlib.Path:
    """Returns the shipped model of a folder that `experiments.train` made, or the folder itself.

    Raises:
        ValueError: the run is not finished, or its backbone cannot be shipped.
    """
    if not (path / IDENTITY_FILE).is_file() or read_object(path / IDENTITY_FILE).get("command") != "train":
        return path
    if not (path / STUDENT).is_dir():
        expected = "a finished run of experiments.train with a backbone of the library; one of your own is not exported"
        raise ValueError(f"{shown(str(path))} has no {STUDENT}; expected {expected}")
    return path / STUDENT
