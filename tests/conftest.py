"""Fixtures that all tests share, and the strictness that every test runs under."""

import functools
import gc
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator

import jax
import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

from alkd_jax import data
from alkd_jax.types import Dataset
from tests.helpers import paths

jax.config.update("jax_numpy_rank_promotion", "raise")

# An example may take as long as a busy machine needs. A test that suppresses other checks lists this one too.
settings.register_profile("alkd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("alkd")

SHARED = paths.SHARED

_CACHE = "JAX_COMPILATION_CACHE_DIR"

# Tests compile many programs and run each briefly. Without LLVM's optimization a program has the same XLA passes, and
# compiles in two thirds of the time. The flag is read when the first device is asked for.
_FLAG = "--xla_backend_optimization_level"
if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}=0".strip()


def pytest_configure(config: pytest.Config) -> None:
    """Lets the workers and the processes that tests start share compiled programs, in a folder of this run alone."""
    if _CACHE not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="compiled_", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ[_CACHE] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # Other processes read the variables; this process imported JAX before they were set.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_compilation_cache_dir", folder.name)


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs() -> Iterator[None]:
    """Frees the compiled programs of a module after its last test; those of all modules together fill the memory."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Calls functions as a user does, without the checks of annotated types, so that our own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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


@pytest.fixture(scope="session")
def released_dataset(release: pathlib.Path) -> Callable[[str], Dataset]:
    """Reads a released dataset, "ML" or "Games", when it is first asked for in the session."""
    return functools.cache(functools.partial(data.load_released, release))


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
