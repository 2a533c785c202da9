"""Fixtures shared by all tests, and the strictness every test runs under."""

import os
import pathlib
import tempfile

import jax
import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import paths

jax.config.update("jax_numpy_rank_promotion", "raise")

# How long an example takes is the machine's affair; a test that suppresses checks of its own names this one too.
settings.register_profile("alkd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("alkd")

SHARED = paths.SHARED

_CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """What is compiled is shared with the other workers and with processes that tests start, for this run alone."""
    if _CACHE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="compiled_", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ[_CACHE] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        # Those others read the variables; this process imported JAX before they were set.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        jax.config.update("jax_compilation_cache_dir", folder.name)


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
