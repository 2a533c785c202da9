"""Groups of seeds: arrays are updated in place, those of a stopped seed do not change, and nothing is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, training
from alkd_jax.training import seeds as seed_groups
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.steppers import dense
from tests.helpers.cyclic_sessions import cyclic_sessions

DIM = 16


def prepared(num_items, seeds):
    """Static arguments, parameters, groups and their states for this many seeds."""
    sessions = cyclic_sessions(64, 0, 0, num_items=num_items)
    few = jax.tree.map(lambda leaf: leaf[:4], sessions)
    model = models.create("fpmc", num_items=num_items, dim=DIM)
    train_step = dense.TrainStep(model, training.in_batch_loss(model), optax.adam(0.01), 16, 3, 10, 5, 4)
    params = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), seeds))
    data = dense.TrainingData(last_item_examples(sessions), sessions, few, None)
    groups = seed_groups.split_seeds(train_step, training.seed_keys(jax.random.key(1), seeds), data)
    return train_step, params, groups, seed_groups.init_states(train_step, params, params, groups)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere all seeds are one group")
def test_a_step_holds_two_gradients_and_no_copies_of_tables_or_moments():
    def num_bytes(num_items):
        train_step, _, [group], [state] = prepared(num_items, 1)
        # Flat, since what describes an array is no array, which the types of a state would refuse.
        flat, tree = jax.tree.flatten((state, *group, jnp.int32(0)))
        donated = tuple(range(len(jax.tree.leaves(state))))
        interval = lambda *flat: dense.run_interval(train_step, *jax.tree.unflatten(tree, flat))  # noqa: E731
        memory = jax.jit(interval, donate_argnums=donated).lower(*flat).compile().memory_analysis()
        return np.array([memory.temp_size_in_bytes, memory.alias_size_in_bytes])

    more = (num_bytes(40_000) - num_bytes(20_000)) / (20_000 * DIM * 4)
    assert more[0] < 3.5, f"temporaries of {more[0]:.1f} tables"
    assert more[1] == pytest.approx(8), "two tables, their moments and the best are changed in place"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere all seeds are one group")
def test_a_stopped_seed_does_not_change_and_the_others_continue():
    train_step, _, groups, states = prepared(50, 3)
    before = jax.device_get([state.params for state in states])
    after, metrics = seed_groups.run_interval(train_step, states, groups, np.int32(0), np.array([True, False, True]))
    assert metrics.is_finite.shape == (3, 3)
    assert (metrics.loss[[0, 2]] > 0).all()
    for number, (old, state) in enumerate(zip(before, after, strict=True)):
        same = [(one == two).all() for one, two in zip(*map(jax.tree.leaves, (old, state.params)), strict=True)]
        assert all(same) == (number == 1)


def test_groups_are_copies_and_their_concatenation_is_the_original():
    train_step, params, groups, states = prepared(50, 2)
    concatenated = seed_groups.concatenate(train_step, states)
    before = [np.array(leaf) for leaf in jax.tree.leaves((params, concatenated))]
    seed_groups.run_interval(train_step, states, groups, np.int32(0), np.ones(2, bool))
    for one, other in zip(jax.tree.leaves((params, concatenated)), before, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*map(jax.tree.leaves, (concatenated.params, params)), strict=True):
        np.testing.assert_array_equal(one, other)
