"""Training with packed tables, as on a TPU: the same results, and the same checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models
from alkd_jax.ops import embedding, packed_rows, platforms
from alkd_jax.training.packed_state import pack_state, unpack_on_host
from alkd_jax.training.steppers import lazy_rows
from tests.helpers.interrupted_training import fit_large
from tests.helpers.row_sparse_data import NUM_ITEMS


@pytest.fixture
def packs(monkeypatch):
    """Sets whether tables are packed and the best parameters are kept on the host, as on a TPU."""

    def set_platform(is_tpu):
        monkeypatch.setattr(platforms, "tiles_memory", lambda: is_tpu)
        monkeypatch.setattr(platforms, "has_own_memory", lambda: is_tpu)

    return set_platform


def assert_close(one, two):
    """The same up to the rounding of another compilation."""
    assert jax.tree.structure(one.params) == jax.tree.structure(two.params)
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left.astype(jnp.float32), right.astype(jnp.float32), atol=2e-4)
    np.testing.assert_allclose(one.history.loss, two.history.loss, rtol=1e-4)
    np.testing.assert_array_equal(one.history.recall, two.history.recall)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"keep_best": False, "row_optimizer": embedding.adagrad(0.1, rowwise=True)}, marks=pytest.mark.slow
        ),
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(
            {"initial": models.init_params(jax.random.key(3), models.create("stamp", num_items=NUM_ITEMS, dim=4))},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_training_continues_on_a_machine_that_packs_and_on_one_that_does_not(tmp_path, packs, options):
    packs(False)
    expected = fit_large(None, max_steps=20, **options)
    fit_large(tmp_path, max_steps=10, **options)
    packs(True)
    fit_large(tmp_path, max_steps=15, every=1, **options)
    packs(False)
    steps = []
    out = fit_large(tmp_path, max_steps=20, progress=lambda now: steps.append(now.step), **options)
    assert steps == [20]
    assert_close(out, expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_with_packed_tables_learns_what_it_learns_without(packs, dtype):
    packs(False)
    plain = fit_large(None, max_steps=20, table_dtype=dtype)
    packs(True)
    packed = fit_large(None, max_steps=20, table_dtype=dtype)
    assert {type(leaf) for leaf in jax.tree.leaves(packed.params)} == {np.ndarray}
    if dtype == "float32":
        assert_close(packed, plain)
    else:
        # The noise of the rounding is drawn for stored rows, so it is another one.
        np.testing.assert_allclose(packed.history.loss, plain.history.loss, rtol=0.05)


def test_a_state_survives_the_way_to_the_disk_and_back():
    model = models.create("late", num_items=10, dim=5)
    stepper = lazy_rows.LazyRows(model, embedding.adagrad(0.1, rowwise=True), optax.sgd(0.1))
    state = unpack_on_host(stepper.init(models.init_params(jax.random.key(0), model)))
    packed = pack_state(state)
    assert isinstance(packed.tables["input_embedding"], packed_rows.PackedTable)
    assert packed.tables["input_bias"].shape == packed.slots["input_embedding"].squares.shape == (11,)
    for left, right in zip(jax.tree.leaves(unpack_on_host(packed)), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_table_that_scores_the_items_is_found():
    def found(name, **options):
        return lazy_rows.output_table(models.create(name, num_items=4, dim=6, **options))

    assert found("fpmc") == found("stamp") == found("attmix") == "output_embedding"
    assert found("stamp", variant="original") == "input_embedding"
    assert found("late") is None
