"""Fixtures shared by all tests, and the strictness every test runs under."""

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def release() -> pathlib.Path:
    """The authors' released files, which a user's clone does not have."""
    path = SHARED / "alkdrec-release"
    if not path.is_dir():
        pytest.skip("the authors' released files (../shared/alkdrec-release) are not here")
    return path


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Golden values of the reference implementation, which a user's clone does not have."""
    path = SHARED / "golden"
    if not path.is_dir():
        pytest.skip("the golden values (../shared/golden) are not here")
    return path


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
