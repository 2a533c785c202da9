"""Parameters are restored from disk unchanged, and only for the model they belong to."""

import jax
import numpy as np
import pytest

from alkd_jax import models
from alkd_jax.training import checkpoints


@pytest.fixture
def model():
    return models.create("fpmc", num_items=20, dim=4)


def test_round_trip_with_a_seed_axis(tmp_path, model):
    params = jax.vmap(lambda k: models.init_params(k, model))(jax.random.split(jax.random.key(0), 3))
    checkpoints.save_params(tmp_path / "student", params)
    restored = checkpoints.restore_params(tmp_path / "student", model, seeds=3)
    for back, sent in zip(jax.tree.leaves(restored), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(back, sent)


def test_nothing_is_overwritten(tmp_path, model):
    params = models.init_params(jax.random.key(0), model)
    checkpoints.save_params(tmp_path / "student", params)
    with pytest.raises(ValueError, match="exists"):
        checkpoints.save_params(tmp_path / "student", params)


def test_another_models_parameters_are_refused(tmp_path, model):
    checkpoints.save_params(tmp_path / "student", models.init_params(jax.random.key(0), model))
    with pytest.raises(ValueError, match="student"):
        checkpoints.restore_params(tmp_path / "student", models.create("fpmc", num_items=20, dim=5))


def test_a_missing_or_damaged_folder_is_refused(tmp_path, model):
    with pytest.raises(ValueError, match="missing"):
        checkpoints.restore_params(tmp_path / "nothing", model)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.ocdbt").write_bytes(b"?")
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoints.restore_params(tmp_path / "damaged", model)
