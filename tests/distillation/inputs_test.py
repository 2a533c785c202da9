"""The baselines in training: with weight 0 they are the plain student, one compilation serves a grid, they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives, samplers, training
from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.training.steppers import dense as programs
from alkd_jax.types import Rankings
from tests.training.fit_test import NUM_ITEMS, chain_sessions

TRAIN, VALIDATION = chain_sessions(300, 0, 0), chain_sessions(90, 300, 1)
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
    given = (jax.random.key(0), STUDENT)
    after = (TRAIN, VALIDATION)
    return {
        "DE": functools.partial(de.distill, *given, TEACHER, teacher, *after, num_experts=3),
        "FTD": functools.partial(ftd.distill, *given, TEACHER, teacher, *after),
        "HTD": functools.partial(htd.distill, *given, TEACHER, teacher, *after, num_groups=3),
        "unKD": functools.partial(unkd.distill, *given, TEACHER, teacher, *after, num_groups=2, num_pairs=6, depth=8),
        "RD": functools.partial(rd.distill, *given, TEACHER, teacher, *after, length=5, dynamic_from=4),
        "DLLM2Rec": functools.partial(dllm2rec.distill, *given, rankings, *after, length=4, list_batch=32),
    }


NAMES = ["DE", "FTD", "HTD", "unKD", "RD", "DLLM2Rec"]


@pytest.fixture(scope="module")
def plain():
    return training.fit(jax.random.key(0), STUDENT, TRAIN, VALIDATION, seeds=2, max_steps=8, **FEW)


def assert_same_course(one, two, **tolerance):
    assert jax.tree.structure(one.params) == jax.tree.structure(two.params)
    for left, right in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_allclose(one.history.loss, two.history.loss, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_array_equal(one.history.recall, two.history.recall)


@pytest.mark.parametrize("name", NAMES)
def test_without_weight_a_method_is_the_plain_student_bit_for_bit(name, teacher, rankings, plain):
    assert_same_course(methods(teacher, rankings)[name](weight=0.0, seeds=2, max_steps=8, **FEW), plain)


@pytest.mark.parametrize(
    "name", ["FTD", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "FTD")]
)
def test_what_a_method_draws_leaves_the_students_draws_alone_and_one_program_serves_all_weights(
    name, teacher, rankings, plain
):
    method = methods(teacher, rankings)[name]
    faint = method(weight=1e-30, seeds=2, max_steps=8, **FEW)
    assert_same_course(faint, plain, atol=1e-6)
    compiled = programs.interval._cache_size()
    weighted = method(weight=0.5, seeds=2, max_steps=8, **FEW)
    assert programs.interval._cache_size() == compiled
    assert np.isfinite(weighted.history.loss[:, 1:]).all()
    assert (weighted.history.loss[:, 1:] != plain.history.loss[:, 1:]).all()
    assert (weighted.history.loss[0] != weighted.history.loss[1]).any()


def test_sparse_training_at_density_one_is_plain_training(plain):
    given = (jax.random.key(0), STUDENT, TRAIN, VALIDATION)
    assert_same_course(dsl.distill(*given, density=1.0, seeds=2, max_steps=8, **FEW), plain)


def test_sparse_training_keeps_its_budget_and_learns():
    wide = models.create("fpmc", num_items=NUM_ITEMS, dim=20)
    given = (jax.random.key(0), wide, TRAIN, VALIDATION)
    fitted = dsl.distill(*given, density=0.3, every=5, seeds=2, max_steps=100, **FEW)
    assert fitted.history.recall.max() > fitted.history.recall[:, 0].max() + 0.2
    whole = 2 * NUM_ITEMS * 20
    active = np.asarray(fitted.params["params"]["input_embedding"] != 0)
    assert (active[0] != active[1]).any()
    # Entries that have come back and not moved yet are active zeros.
    for seed in range(2):
        count = dsl.num_active(jax.tree.map(lambda leaf, s=seed: leaf[s], fitted.params))
        assert 0.2 * whole < count < 0.36 * whole


def test_lists_alone_teach_a_trained_student(rankings, plain):
    wanted = VALIDATION
    tuned = dllm2rec.distill(
        jax.random.key(0),
        STUDENT,
        rankings,
        TRAIN,
        wanted,
        student=plain.params,
        length=1,
        seeds=2,
        max_steps=80,
        **FEW,
    )
    assert (tuned.history.recall[:, 0] == plain.best_metric).all()
    assert tuned.best_metric.min() > plain.best_metric.max() + 0.2


def test_a_base_loss_finds_its_own_aside_and_the_noise_leaves_its_key_alone(teacher):
    base = objectives.sampled_loss(STUDENT, "bce", num_negatives=2)
    own = {"sampler": samplers.uniform(NUM_ITEMS)}
    after = (TRAIN, VALIDATION)
    expected = training.fit(jax.random.key(0), STUDENT, *after, loss=base, loss_inputs=own, max_steps=8, **FEW)
    given = (jax.random.key(0), STUDENT, TEACHER, teacher, *after)
    found = ftd.distill(*given, weight=1e-30, base=base, loss_inputs=own, max_steps=8, **FEW)
    assert_same_course(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weight": -1.0}, "weight is -1.0"), ({"targets": "all"}, "guides 'last' only"), ({"weight": np.nan}, "is nan")],
)
def test_what_cannot_guide_is_refused(teacher, options, message):
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
        method.distil(jax.random.key(0), STUDENT, TEACHER, teacher, TRAIN, VALIDATION, **options)


def test_full_topology_brings_the_students_angles_nearer_the_teachers(teacher):
    def distance(params):
        def angles(model, params):
            table = model.apply(params, method="item_embeddings")[1:]
            table /= jnp.linalg.norm(table, axis=1, keepdims=True)
            return table @ table.T

        return jnp.abs(angles(STUDENT, params) - angles(TEACHER, teacher)).mean()

    def trained(weight):
        given = (jax.random.key(0), STUDENT, TEACHER, teacher, TRAIN, VALIDATION)
        fitted = ftd.distill(*given, weight=weight, seeds=2, max_steps=60, **FEW)
        return jax.tree.map(lambda leaf: leaf[0], fitted.params)

    assert distance(trained(0.1)) < 0.8 * distance(trained(0.0))
