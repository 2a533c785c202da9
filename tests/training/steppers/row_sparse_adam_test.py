"""Row-sparse Adam has the numbers of dense Adam."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives
from alkd_jax.training import examples
from alkd_jax.training.steppers import dense, row_sparse_adam
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Sessions

NUM_ITEMS, STEPS = 40, 7


@pytest.fixture(scope="module")
def train():
    rng = np.random.default_rng(0)
    mask = np.arange(6) < rng.integers(1, 7, 90)[:, None]
    items = np.where(mask, rng.integers(1, NUM_ITEMS - 10, (90, 6)), 0).astype(np.int32)
    return Sessions(items, mask, rng.integers(1, NUM_ITEMS - 5, 90).astype(np.int32), np.arange(90, dtype=np.int32))


def prepared(train, model, adam, **changes):
    train_step = dense.TrainStep(
        model=model,
        loss=objectives.in_batch_loss(model),
        optimizer=adam.as_optax(),
        adam=adam,
        batch_size=16,
        steps=STEPS,
        patience=3,
        recall_at=5,
        validation_batch=8,
    )
    params = models.init_params(jax.random.key(1), model, length=6)
    data = jax.device_put(dense.TrainingData(examples.last_item_examples(train), train, train, None))
    zero = jnp.zeros((), jnp.int32)
    recall = jnp.zeros(())
    state = dense.TrainState(params, adam.as_optax().init(params), params, recall, zero, zero, jnp.zeros((), bool))
    return dataclasses.replace(train_step, **changes), state, data


def intervals(step, train_step, state, data, number):
    """Runs this many intervals as ``run_interval`` does."""
    advance = jax.jit(step)
    for start in range(0, number * STEPS, STEPS):
        rows = examples.batch_rows(jax.random.key(2), start, STEPS, train_step.batch_size, len(data.source))
        plan = (rows, start + jnp.arange(STEPS))
        params, opt_state, is_finite = advance(state, data, plan, jax.random.key(3))
        state = state.replace(params=params, opt_state=opt_state)
        assert is_finite.all()
    return state


DECAYING = Adam(optax.linear_schedule(0.02, 0.0, 15), weight_decay=0.1)


BOTH = ("input_embedding", "output_embedding")


@pytest.mark.parametrize(
    ("backbone", "adam", "names"),
    [("fpmc", Adam(0.01), BOTH[1:]), ("stamp", DECAYING, BOTH), ("attmix", Adam(0.01), BOTH)],
)
def test_equals_dense_adam_over_several_intervals(train, backbone, adam, names):
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    train_step, state, data = prepared(train, model, adam)
    steppers = (functools.partial(train_step.row_sparse_steps, names), train_step.dense_steps)
    by_rows, by_tables = (intervals(step, train_step, state, data, 3) for step in steppers)
    assert jax.tree.structure(by_rows) == jax.tree.structure(by_tables)
    change = jax.tree.map(lambda new, old: np.abs(new - old).max(), by_rows.params, state.params)
    assert min(jax.tree.leaves(change)) > 1e-3
    for (path, rows), tables in zip(
        jax.tree_util.tree_leaves_with_path(by_rows), jax.tree.leaves(by_tables), strict=True
    ):
        np.testing.assert_allclose(rows, tables, rtol=2e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))


def test_rows_read_now_and_then_are_those_of_dense_adam_over_the_longest_interval():
    adam, steps = Adam(optax.linear_schedule(0.02, 0.005, 300), weight_decay=0.1), row_sparse_adam.MAX_STEPS
    value = jax.random.normal(jax.random.key(0), (6, 2))
    rng = np.random.default_rng(1)
    place = rng.choice(4, (steps, 3), p=[0.9, 0.08, 0.015, 0.005])
    # Row 4 is read once at the start, row 5 never.
    place[0] = 4
    gradient = rng.normal(size=(steps, 3, 2)).astype(np.float32) * 10.0 ** rng.integers(-6, 1, (steps, 3, 1))
    optimizer = adam.as_optax()

    @jax.jit
    def both(value, place, gradient):
        def by_rows(carry, now):
            table, pending = carry
            interval_step, place, gradient = now
            rows = row_sparse_adam.unique_rows(place, len(value))
            table = row_sparse_adam.apply_pending(adam, table, rows, pending, interval_step)
            read, update = table.value[place], adam.update_at(interval_step, interval_step)
            table = row_sparse_adam.update_rows(adam, table, rows, gradient, update, interval_step)
            return (table, pending.append(update, interval_step)), read

        def dense(carry, now):
            value, state = carry
            _, place, gradient = now
            whole = jnp.zeros_like(value).at[place].add(gradient)
            updates, state = optimizer.update(whole, state, value)
            return (optax.apply_updates(value, updates), state), value[place]

        plan = 1 + jnp.arange(steps), place, gradient
        zeros = jnp.zeros_like(value)
        table = row_sparse_adam.init_table(value, zeros, zeros)
        (table, pending), read = jax.lax.scan(by_rows, (table, row_sparse_adam.no_pending_updates(steps)), plan)
        (wanted, state), wanted_read = jax.lax.scan(dense, (value, optimizer.init(value)), plan)
        ours = row_sparse_adam.apply_all_pending(adam, table, pending, steps)
        return (*ours, read), (wanted, *(optax.tree.get(state, name) for name in ("mu", "nu")), wanted_read)

    for ours, wanted in zip(*both(value, place, gradient), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=3e-4, atol=2e-6)


def test_only_plain_adam_on_large_tables_is_row_sparse(train, monkeypatch):
    def chosen(train_step, state, data):
        plan = jnp.zeros((STEPS, train_step.batch_size), jnp.int32), jnp.arange(STEPS)
        return train_step.row_sparse_tables(state, data, plan)

    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    train_step, state, data = prepared(train, model, Adam(0.01))
    assert chosen(train_step, state, data) == (), "small tables"
    monkeypatch.setattr(row_sparse_adam, "_MIN_TABLE_SIZE", 1)
    assert chosen(train_step, state, data) == BOTH[1:], "a step reads 96 rows of 41 and 16 of 41"
    monkeypatch.setattr(row_sparse_adam, "_MIN_ROWS_PER_ID", 0)
    assert chosen(train_step, state, data) == BOTH
    full = objectives.full_softmax(model)
    for change in ({"adam": None}, {"loss": full}, {"steps": row_sparse_adam.MAX_STEPS + 1}):
        assert chosen(dataclasses.replace(train_step, **change), state, data) == (), change
    assert chosen(train_step, state.replace(params=state.params | {"extra": {}}), data) == ()
    original = models.create("stamp", num_items=NUM_ITEMS, dim=4, variant="original")
    assert chosen(*prepared(train, original, Adam(0.01))) == (), "one table read twice"


def test_an_interval_with_row_sparse_updates_keeps_the_best_parameters(train, monkeypatch):
    monkeypatch.setattr(row_sparse_adam, "_MIN_TABLE_SIZE", 1)
    monkeypatch.setattr(row_sparse_adam, "_MIN_ROWS_PER_ID", 0)
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    train_step, state, data = prepared(train, model, Adam(0.01))
    key, both = jax.random.key(4), []
    for adam in (train_step.adam, None):
        chosen = dataclasses.replace(train_step, adam=adam)
        both.append(jax.jit(chosen.run_interval)(state, key, data, jnp.int32(0)))
    for rows, tables in zip(jax.tree.leaves(both[0]), jax.tree.leaves(both[1]), strict=True):
        np.testing.assert_allclose(rows, tables, rtol=2e-4, atol=2e-6)
