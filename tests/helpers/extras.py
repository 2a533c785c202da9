"""Packages of an extra whose libraries may be missing on a machine."""

import importlib

import pytest


def import_or_skip(name):
    """Returns a module; skips the test where the package, or a library of the system that it loads, is not there."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")
