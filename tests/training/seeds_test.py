"""Groups of seeds: arrays are updated in place, those of a stopped seed do not change, and nothing is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, objectives, training
from alkd_jax.training import interval
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.loop import TrainingLoop
from alkd_jax.training.seeds import join_seeds, split_seeds
from alkd_jax.training.steppers.dense import Dense
from tests.helpers.cyclic_sessions import cyclic_sessions

DIM = 16


def prepared(num_items, seeds, *, has_seed_axis=False):
    """Static arguments, parameters with a seed axis, the keys of the groups, and what they read."""
    sessions = cyclic_sessions(64, 0, 0, num_items=num_items)
    few = jax.tree.map(lambda leaf: leaf[:4], sessions)
    model = models.create("fpmc", num_items=num_items, dim=DIM)
    program = interval.Interval(Dense(model, optax.adam(0.01)), 16, 3, 5, 4, has_seed_axis=has_seed_axis)
    params = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), seeds))
    data = TrainingData(last_item_examples(sessions), sessions, few, objectives.InBatchBPR(model))
    return program, params, split_seeds(program, training.seed_keys(jax.random.key(1), seeds)), data


def test_a_step_holds_two_gradients_and_no_copies_of_tables_or_moments():
    def num_bytes(num_items):
        program, params, [key], data = prepared(num_items, 1)
        [state] = [interval.init_state(program, part) for part in split_seeds(program, params)]
        # Flat, since what describes an array is no array, which the types of a state would refuse.
        flat, tree = jax.tree.flatten((state, key, data, jnp.int32(0)))
        donated = tuple(range(len(jax.tree.leaves(state))))
        steps = lambda *flat: interval.take_steps(program, *jax.tree.unflatten(tree, flat))  # noqa: E731
        memory = jax.jit(steps, donate_argnums=donated).lower(*flat).compile().memory_analysis()
        return np.array([memory.temp_size_in_bytes, memory.alias_size_in_bytes])

    more = (num_bytes(40_000) - num_bytes(20_000)) / (20_000 * DIM * 4)
    assert more[0] < 3.5, f"temporaries of {more[0]:.1f} tables"
    assert more[1] == pytest.approx(6), "two tables and their moments are changed in place"


def test_a_stopped_seed_does_not_change_and_the_others_continue():
    program, params, keys, data = prepared(50, 3)
    groups = split_seeds(program, params)
    loop = TrainingLoop(program, keys, [data] * 3, lambda: None, lambda s: s, lambda s: s, max_steps=9, patience=9)
    states = [interval.init_state(program, part) for part in groups]
    before = jax.device_get([state.params for state in states])
    after, metrics, recall = loop._run_interval(states, np.array([True, False, True]), 0)
    assert metrics.is_finite.shape == (3, 3)
    assert recall.shape == (3,)
    assert (metrics.loss[[0, 2]] > 0).all()
    for number, (old, state) in enumerate(zip(before, after, strict=True)):
        same = [(one == two).all() for one, two in zip(*map(jax.tree.leaves, (old, state.params)), strict=True)]
        assert all(same) == (number == 1)


@pytest.mark.parametrize("has_seed_axis", [False, True])
def test_groups_are_copies_and_their_concatenation_is_the_original(has_seed_axis):
    program, params, keys, data = prepared(50, 2, has_seed_axis=has_seed_axis)
    states = [interval.init_state(program, part) for part in split_seeds(program, params)]
    joined = join_seeds(program, states)
    before = [np.array(leaf) for leaf in jax.tree.leaves((params, joined))]
    for state, key in zip(states, keys, strict=True):
        interval.take_steps(program, state, key, data, np.int32(0))
    for one, other in zip(jax.tree.leaves((params, joined)), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*map(jax.tree.leaves, (joined.params, params)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_seeds_in_one_program_equal_seeds_in_turn(monkeypatch):
    """As on a GPU: all seeds have one more axis, each with examples and early stopping of its own."""
    train, validation = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)
    model, key = models.create("fpmc", num_items=40, dim=6), jax.random.key(0)
    examples = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf[::-1]]), last_item_examples(train))
    options = dict(seeds=2, examples=examples, batch_size=64, steps_per_validation=5, learning_rate=0.05, recall_at=5)
    in_turn = training.fit(key, model, train, validation, max_steps=60, patience=2, **options)
    monkeypatch.setattr("alkd_jax.ops.platforms.trains_seeds_in_turn", lambda: False)
    together = training.fit(key, model, train, validation, max_steps=60, patience=2, **options)
    np.testing.assert_array_equal(together.best_step, in_turn.best_step)
    np.testing.assert_array_equal(together.history.recall, in_turn.history.recall)
    for one, other in zip(*map(jax.tree.leaves, (together.params, in_turn.params)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
