"""Numbers and arrays that training would take wrongly are refused before anything is traced."""

import dataclasses
import math
import types

import jax
import numpy as np
import pytest

from alkd_jax import models, training
from alkd_jax.checks import check_sessions
from alkd_jax.ops import embedding
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training.interval import IntervalMetrics
from alkd_jax.training.loop import TrainingLoop
from alkd_jax.training.seeds import seed_numbers
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

TRAIN, VALIDATION = cyclic_sessions(30, 0, 0), cyclic_sessions(9, 30, 1)


def fit(train=TRAIN, validation=VALIDATION, **options):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    return training.fit(jax.random.key(0), model, train, validation, **options)


@pytest.mark.parametrize("seeds", [-1, 0, [], [-1], [2**32], [1.0], [True], True, 2.5, "2", None, [0, 0], [None]])
def test_numbers_that_are_no_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match=r"seeds is .*; expected"):
        training.seed_keys(jax.random.key(0), seeds)


@pytest.mark.parametrize("seeds", [2, np.int64(2), [0, 1], np.arange(2), (0, 1), range(2)])
def test_other_ways_to_give_seeds_are_the_same(seeds):
    assert seed_numbers(seeds) == [0, 1]
    assert seed_numbers([2**32 - 1]) == [2**32 - 1]


@pytest.mark.parametrize(
    "name", ["batch_size", "max_steps", "steps_per_validation", "patience", "recall_at", "validation_batch"]
)
def test_every_size_of_fit_is_a_count(name):
    with pytest.raises(ValueError, match=f"{name} is 0; expected at least 1"):
        fit(**{name: 0})


@pytest.mark.parametrize("value", [-1e-3, math.nan, math.inf])
def test_rates_are_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="learning_rate is "):
        Adam(value)
    with pytest.raises(ValueError, match="weight_decay is "):
        Adam(0.1, value)
    with pytest.raises(ValueError, match="learning_rate is "):
        embedding._step_size(value, jax.numpy.int32(0))
    assert Adam(0.0).learning_rate == 0


BAD_SESSIONS = {
    "target has shape": {"target": TRAIN.target[:-1]},
    "mask has shape": {"mask": TRAIN.mask[:-1]},
    "session_id has shape": {"session_id": TRAIN.session_id[:3]},
    "items have shape": {"items": TRAIN.items.ravel()},
    "targets are numbers of type": {"target": TRAIN.target.astype(np.float32)},
    "mask is of type": {"mask": TRAIN.mask.astype(np.int32)},
    "targets span": {"target": TRAIN.target * 0},
    "items span": {"items": TRAIN.items - 1},
    "has padding, item 0, where": {"mask": np.ones_like(TRAIN.mask)},
}


@pytest.mark.parametrize("message", BAD_SESSIONS)
def test_sessions_whose_arrays_do_not_fit_are_refused(message):
    # Any object with the fields, since the types of Sessions, checked in tests alone, refuse some of these.
    bad = types.SimpleNamespace(**(vars(TRAIN) | BAD_SESSIONS[message]))
    with pytest.raises(ValueError, match=f"train .*{message}"):
        check_sessions("train", bad, NUM_ITEMS)
    check_sessions("train", TRAIN, NUM_ITEMS)
    check_sessions("train", jax.tree.map(jax.numpy.asarray, TRAIN), NUM_ITEMS)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_fit_checks_both_splits(split):
    for rows in (slice(0), slice(5)):
        bad = dataclasses.replace(TRAIN.take(rows), mask=TRAIN.mask[:4])
        with pytest.raises(ValueError, match=f"{split} "):
            fit(**{split: bad})


def test_a_loss_that_is_found_late_is_named_by_its_interval():
    loop = types.SimpleNamespace(first_seed=3, interval=types.SimpleNamespace(steps=5))
    for is_finite, when in ((np.ones((1, 5), bool), "in the steps 11..15"), (np.arange(5)[None] < 2, "at step 13")):
        metrics = IntervalMetrics(np.array([np.nan]), is_finite)
        with pytest.raises(FloatingPointError, match=f"seed 3 is not finite {when}"):
            TrainingLoop._check_finite(loop, metrics, np.array([True]), 10)
