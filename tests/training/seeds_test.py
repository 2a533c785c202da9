"""Seeds in groups: a group's arrays are changed in place, those of a stopped one are left alone, nothing is shared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models, training
from alkd_jax.training import seeds as groups
from alkd_jax.training.examples import last_item_examples
from alkd_jax.training.steppers import dense as programs
from tests.training.fit_test import chain_sessions

DIM = 16


def prepared(num_items, seeds):
    """Program, parameters, groups and their states for so many seeds."""
    sessions = chain_sessions(64, 0, 0, num_items=num_items)
    few = jax.tree.map(lambda leaf: leaf[:4], sessions)
    model = models.create("fpmc", num_items=num_items, dim=DIM)
    program = programs.TrainStep(model, training.in_batch_loss(model), optax.adam(0.01), 16, 3, 10, 5, 4)
    params = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), seeds))
    material = programs.TrainingData(last_item_examples(sessions), sessions, few, None)
    own = groups.split(program, training.seed_keys(jax.random.key(1), seeds), material)
    return program, params, own, groups.start(program, params, params, own)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere all seeds are one group")
def test_a_step_holds_two_gradients_and_no_copies_of_tables_or_moments():
    def held(num_items):
        program, _, [group], [state] = prepared(num_items, 1)
        # Flat, since what describes an array is no array, which the types of a state would refuse.
        flat, tree = jax.tree.flatten((state, *group, jnp.int32(0)))
        donated = tuple(range(len(jax.tree.leaves(state))))
        interval = lambda *flat: programs.interval(program, *jax.tree.unflatten(tree, flat))  # noqa: E731
        told = jax.jit(interval, donate_argnums=donated).lower(*flat).compile().memory_analysis()
        return np.array([told.temp_size_in_bytes, told.alias_size_in_bytes])

    more = (held(40_000) - held(20_000)) / (20_000 * DIM * 4)
    assert more[0] < 3.5, f"temporaries of {more[0]:.1f} tables"
    assert more[1] == pytest.approx(8), "two tables, their moments and the best are changed in place"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere all seeds are one group")
def test_a_seed_that_has_stopped_is_passed_over_and_the_others_go_on():
    program, _, own, states = prepared(50, 3)
    before = jax.device_get([state.params for state in states])
    after, seen = groups.interval(program, states, own, np.int32(0), np.array([True, False, True]))
    assert seen.sound.shape == (3, 3)
    assert (seen.loss[[0, 2]] > 0).all()
    for number, (old, state) in enumerate(zip(before, after, strict=True)):
        same = [(one == two).all() for one, two in zip(*map(jax.tree.leaves, (old, state.params)), strict=True)]
        assert all(same) == (number == 1)


def test_groups_are_copies_and_joined_again_they_are_what_was_cut():
    program, params, own, states = prepared(50, 2)
    whole = groups.joined(program, states)
    kept = [np.array(leaf) for leaf in jax.tree.leaves((params, whole))]
    groups.interval(program, states, own, np.int32(0), np.ones(2, bool))
    for one, other in zip(jax.tree.leaves((params, whole)), kept, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*map(jax.tree.leaves, (whole.params, params)), strict=True):
        np.testing.assert_array_equal(one, other)
