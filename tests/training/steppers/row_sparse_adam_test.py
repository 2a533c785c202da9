"""Steps of row-sparse Adam have the numbers of dense Adam."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives
from alkd_jax.ops import row_sparse_adam
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training import examples, interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.steppers.dense import Dense
from alkd_jax.training.steppers.row_sparse_adam import RowSparseAdam, row_sparse_tables
from tests.helpers.stepper_data import NUM_ITEMS, sessions_of_some_items

STEPS, BATCH = 7, 16


@pytest.fixture(scope="module")
def train():
    return sessions_of_some_items()


def data_of(train, loss):
    return jax.device_put(TrainingData(examples.last_item_examples(train), train, train, loss))


DECAYING = Adam(optax.linear_schedule(0.02, 0.0, 15), weight_decay=0.1)
BOTH = ("input_embedding", "output_embedding")


@pytest.mark.parametrize(
    ("backbone", "adam", "tables"),
    [
        ("fpmc", Adam(0.01), BOTH[1:]),
        ("stamp", DECAYING, BOTH),
        pytest.param("attmix", Adam(0.01), BOTH, marks=pytest.mark.slow),
    ],
)
def test_equals_dense_adam_over_several_intervals(train, backbone, adam, tables):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    dense, data = Dense(model, adam.as_optax()), data_of(train, objectives.InBatchBPR(model))
    by_rows = RowSparseAdam(model, dense.optimizer, adam=adam, tables=tables, steps=STEPS)
    first = models.init_params(jax.random.key(1), model, length=6)
    ends = []
    for stepper in (by_rows, dense):
        program = interval.Interval(stepper, BATCH, STEPS, recall_at=5, validation_batch=8)
        state = interval.init_state(program, jax.tree.map(jnp.copy, first))
        for start in range(0, 3 * STEPS, STEPS):
            state, metrics = interval.take_steps(program, state, jax.random.key(2), data, np.int32(start))
            assert metrics.is_finite.all()
        ends.append((state, metrics, interval.validate(program, state, data.validation)))
    assert jax.tree.structure(ends[0]) == jax.tree.structure(ends[1])
    change = jax.tree.map(lambda new, old: np.abs(new - old).max(), ends[0][0].params, first)
    assert min(jax.tree.leaves(change)) > 1e-3
    for (path, rows), whole in zip(jax.tree_util.tree_leaves_with_path(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_allclose(rows, whole, rtol=2e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))


def test_only_the_in_batch_loss_on_large_tables_is_row_sparse(train, monkeypatch):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    params = jax.tree.map(lambda leaf: leaf[None], models.init_params(jax.random.key(1), model, length=6))
    data = data_of(train, objectives.InBatchBPR(model))
    assert row_sparse_tables(data, params, BATCH, STEPS) == (), "small tables"
    monkeypatch.setattr(row_sparse_adam, "_MIN_TABLE_SIZE", 1)
    assert row_sparse_tables(data, params, BATCH, STEPS) == BOTH[1:], "a step reads 96 rows of 41 and 16 of 41"
    monkeypatch.setattr(row_sparse_adam, "_MIN_ROWS_PER_ID", 0)
    assert row_sparse_tables(data, params, BATCH, STEPS) == BOTH
    own = dataclasses.replace(data, examples=jax.tree.map(lambda leaf: leaf[None], data.examples))
    assert row_sparse_tables(own, params, BATCH, STEPS) == BOTH, "examples of each seed"
    full = dataclasses.replace(data, loss=objectives.FullSoftmax(model))
    assert row_sparse_tables(full, params, BATCH, STEPS) == ()
    assert row_sparse_tables(data, params, BATCH, row_sparse_adam.MAX_STEPS + 1) == ()
    assert row_sparse_tables(data, params | {"extra": {}}, BATCH, STEPS) == ()
    original = models.create("stamp", num_items=NUM_ITEMS, dim=4, variant="original")
    tied = dataclasses.replace(data, loss=objectives.InBatchBPR(original))
    assert row_sparse_tables(tied, params, BATCH, STEPS) == (), "one table read twice"
