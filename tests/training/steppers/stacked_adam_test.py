"""Steps of stacked Adam have the numbers of dense Adam, whatever the platform they are made for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training import examples, interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.fit import for_platform
from alkd_jax.training.steppers.dense import Dense
from alkd_jax.training.steppers.row_sparse_adam import RowSparseAdam
from alkd_jax.training.steppers.stacked_adam import StackedAdam
from tests.helpers.stepper_data import NUM_ITEMS, sessions_of_some_items

STEPS, BATCH = 5, 16
DECAYING = Adam(optax.linear_schedule(0.02, 0.0, 15), weight_decay=0.1)


@pytest.fixture(scope="module")
def train():
    return sessions_of_some_items()


def programs_of(train, model, adam, platform, loss=None):
    """The intervals with dense steps and with those of a platform, initial parameters and data."""
    data = jax.device_put(
        TrainingData(examples.last_item_examples(train), train, train, loss or objectives.InBatchBPR(model))
    )
    first = models.init_params(jax.random.key(1), model, length=6)
    plan = interval.Interval(Dense(model, adam.as_optax()), BATCH, STEPS, recall_at=5, validation_batch=8)
    return plan, for_platform(plan, adam, data, jax.tree.map(lambda leaf: leaf[None], first), platform), first, data


@pytest.mark.parametrize(
    ("backbone", "options", "adam", "platform"),
    [
        ("fpmc", {}, Adam(0.01), "tpu"),
        ("fpmc", {}, Adam(0.01), "gpu"),
        ("stamp", {}, DECAYING, "gpu"),
        ("stamp", {"sum_padding": True}, DECAYING, "tpu"),
        pytest.param("attmix", {"dropout": 0.0}, Adam(0.01), "gpu", marks=pytest.mark.slow),
    ],
)
def test_equals_dense_adam_over_several_intervals(train, backbone, options, adam, platform):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4, **options)
    dense, stacked, first, data = programs_of(train, model, adam, platform)
    assert isinstance(stacked.stepper, StackedAdam)
    assert stacked.gathers_ahead
    ends = []
    for program in (stacked, dense):
        state = interval.init_state(program, jax.tree.map(jnp.copy, first))
        for start in range(0, 3 * STEPS, STEPS):
            state, metrics = interval.take_steps(program, state, jax.random.key(2), data, np.int32(start))
            assert metrics.is_finite.all()
        ends.append((state, metrics))
    assert jax.tree.structure(ends[0]) == jax.tree.structure(ends[1])
    change = jax.tree.map(lambda new, old: np.abs(new - old).max(), ends[0][0].params, first)
    assert min(jax.tree.leaves(change)) > 1e-3
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))


def test_a_padding_row_that_is_not_zero_is_neither_read_nor_changed(train):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    dense, stacked, first, data = programs_of(train, model, Adam(0.01), "gpu")
    row = jnp.full(4, 3.0)
    first = jax.tree.map(lambda table: table.at[0].set(row), first)
    after = [
        interval.take_steps(plan, interval.init_state(plan, first), jax.random.key(2), data, np.int32(0))[0].params
        for plan in (dense, stacked)
    ]
    for one, other in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(other[0], row)


def test_a_step_with_numbers_that_are_not_finite_is_named(train):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    _, stacked, first, data = programs_of(train, model, Adam(0.01), "gpu")
    broken = jax.tree.map(lambda table: table.at[1:].set(jnp.nan), first)
    _, metrics = interval.take_steps(
        stacked, interval.init_state(stacked, broken), jax.random.key(2), data, np.int32(0)
    )
    assert not metrics.is_finite.any()


def test_other_losses_and_backbones_without_tables_of_one_shape_have_dense_steps(train):
    late = models.create("late", num_items=NUM_ITEMS, dim=4)
    fpmc = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    for model, loss in ((late, None), (fpmc, objectives.FullSoftmax(fpmc))):
        _, plan, _, _ = programs_of(train, model, Adam(0.01), "gpu", loss)
        assert type(plan.stepper) is Dense
        assert plan.gathers_ahead
    _, plan, _, _ = programs_of(train, fpmc, Adam(0.01), "cpu")
    assert not isinstance(plan.stepper, StackedAdam)
    assert not plan.gathers_ahead
    assert type(plan.stepper) in (Dense, RowSparseAdam)
