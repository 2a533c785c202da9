"""The precision of training: what the compilers of GPUs and TPUs are told, and what changes on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives, training
from alkd_jax.ops import embedding
from alkd_jax.ops.precision import PRECISIONS, parameter_dtype
from alkd_jax.training import interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.steppers.dense import Dense
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

TRAIN, VALIDATION = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)


def fitted(precision, *, backbone="stamp", call=training.fit, **options):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=6)
    options = {"max_steps": 40, "batch_size": 64, "steps_per_validation": 5, "recall_at": 5} | options
    return call(jax.random.key(0), model, TRAIN, VALIDATION, precision=precision, **options)


def assert_equal(one, other):
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("backbone", ["fpmc", pytest.param("stamp", marks=pytest.mark.slow)])
def test_a_cpu_computes_float32_products_for_tf32_and_learns_in_bfloat16(backbone):
    options = {"backbone": backbone, "learning_rate": 0.05, "patience": 100}
    exact, tf32, rounded = (fitted(precision, **options) for precision in PRECISIONS)
    assert_equal(tf32, exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded.params)} == {jnp.dtype("float32")}
    assert rounded.history.loss[0, -1] != exact.history.loss[0, -1], "the loss reads rounded parameters"
    np.testing.assert_allclose(rounded.history.loss[0, 1:4], exact.history.loss[0, 1:4], rtol=0.02)
    assert exact.best_metric[0] > 0.5, "it learned"
    assert rounded.best_metric[0] > exact.best_metric[0] - 0.1


@pytest.mark.slow
def test_lazy_rows_learn_in_bfloat16_too():
    options = {"call": training.fit_large, "row_optimizer": embedding.adam(0.1), "patience": 100}
    exact, rounded = (fitted(precision, **options) for precision in ("float32", "bfloat16"))
    assert exact.best_metric[0] > 0.5, "it learned"
    assert rounded.best_metric[0] > exact.best_metric[0] - 0.1
    assert rounded.history.loss[0, -1] != exact.history.loss[0, -1]


@pytest.mark.slow
def test_row_sparse_steps_in_bfloat16_equal_dense_ones(monkeypatch):
    monkeypatch.setattr("alkd_jax.ops.row_sparse_adam._MIN_ROWS_PER_ID", 0)
    monkeypatch.setattr("alkd_jax.ops.row_sparse_adam._MIN_TABLE_SIZE", 10**9)
    dense = fitted("bfloat16", max_steps=10)
    monkeypatch.setattr("alkd_jax.ops.row_sparse_adam._MIN_TABLE_SIZE", 1)
    by_rows = fitted("bfloat16", max_steps=10)
    for left, right in zip(jax.tree.leaves(by_rows.params), jax.tree.leaves(dense.params), strict=True):
        np.testing.assert_allclose(left, right, atol=2e-3)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("precision", "expected"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bfloat16", "DEFAULT")])
def test_other_devices_are_told_the_precision_of_every_product_of_a_step(platform, precision, expected):
    model = models.create("stamp", num_items=NUM_ITEMS, dim=6)
    stepper = Dense(model, optax.adam(0.01), dtype=parameter_dtype(precision))
    program = interval.Interval(stepper, 16, 3, 5, 16, precision=precision)
    data = TrainingData(last_item_examples(TRAIN), TRAIN, VALIDATION, objectives.InBatchBPR(model))
    flat, tree = jax.tree.flatten((stepper.init(models.init_params(jax.random.key(0), model)), jax.device_put(data)))

    def steps(*flat):
        state, data = jax.tree.unflatten(tree, flat)
        return jax.tree.leaves(interval.take_steps(program, state, jax.random.key(1), data, jnp.int32(0)))

    text = jax.jit(steps).trace(*flat).lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    chosen = [line for line in products if f"precision = [{expected}, {expected}]" in line]
    # A few products name HIGHEST themselves, because a sum is written as a product.
    others = [line for line in products if line not in chosen and "precision = [HIGHEST, HIGHEST]" not in line]
    assert len(chosen) > 5
    assert not others
    assert any("bf16" in line for line in products) == (precision == "bfloat16")


def test_an_unknown_precision_is_refused_and_another_one_is_another_training(tmp_path):
    with pytest.raises(ValueError, match="precision is 'float16'; expected 'float32' or 'tf32' or 'bfloat16'"):
        fitted("float16")
    folder = TrainingFolder(tmp_path)
    fitted("float32", max_steps=5, checkpoints=folder)
    with pytest.raises(ValueError, match=r"precision \(float32 there, bfloat16 here\)"):
        fitted("bfloat16", max_steps=5, checkpoints=folder)
