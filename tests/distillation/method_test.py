"""The baselines in training: with weight 0 they are the plain student, one compilation serves a grid, they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives, samplers, training
from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.training.steppers import dense
from alkd_jax.types import Rankings
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

TRAIN, VALIDATION = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)
STUDENT = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
TEACHER = models.create("fpmc", num_items=NUM_ITEMS, dim=12)
FEW = dict(batch_size=64, steps_per_validation=4, recall_at=5, learning_rate=0.03, patience=99)


@pytest.fixture(scope="module")
def teacher():
    fitted = training.fit(jax.random.key(8), TEACHER, TRAIN, VALIDATION, max_steps=100, **FEW)
    return jax.tree.map(lambda leaf: leaf[0], fitted.params)


@pytest.fixture(scope="module")
def rankings():
    """What comes next, best first, for every other session."""
    session_id = np.asarray(TRAIN.session_id)[::2]
    items = (np.asarray(TRAIN.target)[::2, None] - 1 + np.arange(6)) % NUM_ITEMS + 1
    return Rankings(session_id, items.astype(np.int32), np.ones(items.shape, bool))


def methods(teacher, rankings):
    """Every baseline as a function of its options."""
    arguments = (jax.random.key(0), STUDENT)
    after = (TRAIN, VALIDATION)
    return {
        "DE": functools.partial(de.distill, *arguments, TEACHER, teacher, *after, num_experts=3),
        "FTD": functools.partial(ftd.distill, *arguments, TEACHER, teacher, *after),
        "HTD": functools.partial(htd.distill, *arguments, TEACHER, teacher, *after, num_groups=3),
        "unKD": functools.partial(
            unkd.distill, *arguments, TEACHER, teacher, *after, num_groups=2, num_pairs=6, depth=8
        ),
        "RD": functools.partial(rd.distill, *arguments, TEACHER, teacher, *after, length=5, dynamic_from=4),
        "DLLM2Rec": functools.partial(dllm2rec.distill, *arguments, rankings, *after, length=4, list_batch=32),
    }


NAMES = ["DE", "FTD", "HTD", "unKD", "RD", "DLLM2Rec"]


@pytest.fixture(scope="module")
def plain():
    return training.fit(jax.random.key(0), STUDENT, TRAIN, VALIDATION, seeds=2, max_steps=8, **FEW)


def assert_same_training(one, two, **tolerance):
    assert jax.tree.structure(one.params) == jax.tree.structure(two.params)
    for left, right in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_allclose(one.history.loss, two.history.loss, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_array_equal(one.history.recall, two.history.recall)


@pytest.mark.parametrize("name", NAMES)
def test_with_weight_zero_a_method_equals_the_plain_student_to_the_bit(name, teacher, rankings, plain):
    assert_same_training(methods(teacher, rankings)[name](weight=0.0, seeds=2, max_steps=8, **FEW), plain)


@pytest.mark.parametrize(
    "name", ["FTD", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "FTD")]
)
def test_a_methods_noise_does_not_change_the_students_and_one_program_serves_all_weights(
    name, teacher, rankings, plain
):
    method = methods(teacher, rankings)[name]
    barely_distilled = method(weight=1e-30, seeds=2, max_steps=8, **FEW)
    assert_same_training(barely_distilled, plain, atol=1e-6)
    compiled = dense.run_interval._cache_size()
    weighted = method(weight=0.5, seeds=2, max_steps=8, **FEW)
    assert dense.run_interval._cache_size() == compiled
    assert np.isfinite(weighted.history.loss[:, 1:]).all()
    assert (weighted.history.loss[:, 1:] != plain.history.loss[:, 1:]).all()
    assert (weighted.history.loss[0] != weighted.history.loss[1]).any()


def test_sparse_training_at_density_one_is_plain_training(plain):
    arguments = (jax.random.key(0), STUDENT, TRAIN, VALIDATION)
    assert_same_training(dsl.distill(*arguments, density=1.0, seeds=2, max_steps=8, **FEW), plain)


def test_sparse_training_keeps_its_number_of_active_entries_and_learns():
    wide = models.create("fpmc", num_items=NUM_ITEMS, dim=20)
    arguments = (jax.random.key(0), wide, TRAIN, VALIDATION)
    fitted = dsl.distill(*arguments, density=0.3, every=5, seeds=2, max_steps=100, **FEW)
    assert fitted.history.recall.max() > fitted.history.recall[:, 0].max() + 0.2
    whole = 2 * NUM_ITEMS * 20
    active = np.asarray(fitted.params["params"]["input_embedding"] != 0)
    assert (active[0] != active[1]).any()
    # Entries that have come back and not moved yet are active zeros.
    for seed in range(2):
        count = sum(np.count_nonzero(leaf[seed]) for leaf in jax.tree.leaves(fitted.params))
        assert 0.2 * whole < count < 0.36 * whole


def test_lists_alone_improve_a_trained_student(rankings, plain):
    validation = VALIDATION
    tuned = dllm2rec.distill(
        jax.random.key(0),
        STUDENT,
        rankings,
        TRAIN,
        validation,
        student_params=plain.params,
        length=1,
        seeds=2,
        max_steps=80,
        **FEW,
    )
    assert (tuned.history.recall[:, 0] == plain.best_metric).all()
    assert tuned.best_metric.min() > plain.best_metric.max() + 0.2


def test_another_student_loss_gets_its_inputs_and_its_key(teacher):
    loss = objectives.sampled_loss(STUDENT, "bce", num_negatives=2)
    loss_inputs = {"sampler": samplers.uniform(NUM_ITEMS)}
    after = (TRAIN, VALIDATION)
    expected = training.fit(jax.random.key(0), STUDENT, *after, loss=loss, loss_inputs=loss_inputs, max_steps=8, **FEW)
    arguments = (jax.random.key(0), STUDENT, TEACHER, teacher, *after)
    actual = ftd.distill(*arguments, weight=1e-30, loss=loss, loss_inputs=loss_inputs, max_steps=8, **FEW)
    assert_same_training(actual, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weight": -1.0}, "weight is -1.0"), ({"targets": "all"}, "expected 'last'"), ({"weight": np.nan}, "is nan")],
)
def test_impossible_inputs_are_refused(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        ftd.distill(jax.random.key(0), STUDENT, TEACHER, teacher, TRAIN, VALIDATION, **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (htd, {"level": "both"}, "level is 'both'"),
        (htd, {"topology": 2.0}, "topology is 2.0"),
        (htd, {"num_groups": 0}, "is 0"),
        (de, {"temperature_end": 0.0}, "temperature_end is 0.0"),
        (rd, {"length": 0}, "length is 0"),
        (unkd, {"depth": 1}, "depth is 1"),
    ],
)
def test_bad_options_are_refused(teacher, method, options, message):
    with pytest.raises(ValueError, match=message):
        method.distill(jax.random.key(0), STUDENT, TEACHER, teacher, TRAIN, VALIDATION, **options)


def test_full_topology_distillation_brings_the_students_angles_closer_to_the_teachers(teacher):
    def distance(params):
        def angles(model, params):
            table = model.apply(params, method="item_embeddings")[1:]
            table /= jnp.linalg.norm(table, axis=1, keepdims=True)
            return table @ table.T

        return jnp.abs(angles(STUDENT, params) - angles(TEACHER, teacher)).mean()

    def trained(weight):
        arguments = (jax.random.key(0), STUDENT, TEACHER, teacher, TRAIN, VALIDATION)
        fitted = ftd.distill(*arguments, weight=weight, seeds=2, max_steps=60, **FEW)
        return jax.tree.map(lambda leaf: leaf[0], fitted.params)

    assert distance(trained(0.1)) < 0.8 * distance(trained(0.0))
