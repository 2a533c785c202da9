"""The baselines in training: with weight 0 they are the plain student, one compilation serves a grid, they learn."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives, samplers, training
from alkd_jax.distillation import TeacherModel, de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.types import Rankings
from tests.helpers.compilations import compilations
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

TRAIN, VALIDATION = cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1)
STUDENT = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
TEACHER = models.create("fpmc", num_items=NUM_ITEMS, dim=12)
FEW = dict(batch_size=64, steps_per_validation=4, recall_at=5, learning_rate=0.03, patience=99)


@pytest.fixture(scope="module")
def teacher():
    fitted = training.fit(jax.random.key(8), TEACHER, TRAIN, VALIDATION, max_steps=100, **FEW)
    return TeacherModel(TEACHER, jax.tree.map(lambda leaf: leaf[0], fitted.params))


@pytest.fixture(scope="module")
def rankings():
    """What comes next, best first, for every other session."""
    session_id = np.asarray(TRAIN.session_id)[::2]
    items = (np.asarray(TRAIN.target)[::2, None] - 1 + np.arange(6)) % NUM_ITEMS + 1
    return Rankings(session_id, items.astype(np.int32), np.ones(items.shape, bool))


METHODS = {
    "DE": (de, {"num_experts": 3}, {"temperature_end": 0.1}),
    "FTD": (ftd, {}, {}),
    "HTD": (htd, {"num_groups": 3}, {"topology": 0.2, "temperature_end": 0.1}),
    "unKD": (unkd, {"num_groups": 2, "num_pairs": 6, "depth": 8}, {}),
    "RD": (rd, {"length": 5, "dynamic_from": 4}, {"sharpness": 2.0, "mu": 0.3, "dynamic_from": 2}),
    "DLLM2Rec": (dllm2rec, {"length": 4, "list_batch": 32}, {"position": 0.6, "consistency": 0.2}),
}
"""Name → module, options, and other values of the options that are arrays."""


def distill(name, teacher, rankings, *, weight, other_options=False, **fit_options):
    module, options, others = METHODS[name]
    options = module.Options(weight=weight, **options | (others if other_options else {}))
    source = rankings if module is dllm2rec else teacher
    return module.distill(jax.random.key(0), STUDENT, source, TRAIN, VALIDATION, options=options, **fit_options, **FEW)


@pytest.fixture(scope="module")
def plain():
    return training.fit(jax.random.key(0), STUDENT, TRAIN, VALIDATION, seeds=2, max_steps=8, **FEW)


def assert_same_training(one, two, **tolerance):
    assert jax.tree.structure(one.params) == jax.tree.structure(two.params)
    for left, right in zip(*map(jax.tree.leaves, (one.params, two.params)), strict=True):
        np.testing.assert_allclose(left, right, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_allclose(one.history.loss, two.history.loss, **{"rtol": 0, "atol": 0, **tolerance})
    np.testing.assert_array_equal(one.history.recall, two.history.recall)


@pytest.mark.parametrize("name", METHODS)
def test_with_weight_zero_a_method_equals_the_plain_student_to_the_bit(name, teacher, rankings, plain):
    assert_same_training(distill(name, teacher, rankings, weight=0.0, seeds=2, max_steps=8), plain)


@pytest.mark.parametrize(
    "name", ["FTD", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name != "FTD")]
)
def test_a_methods_noise_does_not_change_the_students_and_one_program_serves_all_teachers_and_weights(
    name, teacher, rankings, plain
):
    barely_distilled = distill(name, teacher, rankings, weight=1e-30, seeds=2, max_steps=8)
    assert_same_training(barely_distilled, plain, atol=1e-6)
    other_teacher = TeacherModel(TEACHER, models.init_params(jax.random.key(9), TEACHER))
    other_rankings = rankings.replace(items=rankings.items[:, ::-1])
    with compilations() as compiled:
        weighted = distill(name, teacher, rankings, weight=0.5, seeds=2, max_steps=8)
        another = distill(name, other_teacher, other_rankings, weight=0.5, other_options=True, seeds=2, max_steps=8)
    assert not compiled
    assert np.isfinite(weighted.history.loss[:, 1:]).all()
    assert (weighted.history.loss[:, 1:] != plain.history.loss[:, 1:]).all()
    assert (weighted.history.loss[:, 1:] != another.history.loss[:, 1:]).all()
    assert (weighted.history.loss[0] != weighted.history.loss[1]).any()


def test_the_methods_have_the_signature_of_the_protocol():
    for name, (module, _, _) in METHODS.items():
        positional = list(inspect.signature(module.distill).parameters)[:5]
        assert positional[:2] + positional[3:] == ["key", "model", "train", "validation"], name


def test_sparse_training_at_density_one_is_plain_training(plain):
    arguments = (jax.random.key(0), STUDENT, TRAIN, VALIDATION)
    assert_same_training(dsl.distill(*arguments, options=dsl.Options(density=1.0), seeds=2, max_steps=8, **FEW), plain)


def test_sparse_training_keeps_its_number_of_active_entries_and_learns():
    wide = models.create("fpmc", num_items=NUM_ITEMS, dim=20)
    arguments = (jax.random.key(0), wide, TRAIN, VALIDATION)
    options = dsl.Options(density=0.3, every=5)
    fitted = dsl.distill(*arguments, options=options, seeds=2, max_steps=100, **FEW)
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
        options=dllm2rec.Options(length=1),
        student_params=plain.params,
        seeds=2,
        max_steps=80,
        **FEW,
    )
    assert (tuned.history.recall[:, 0] == plain.best_metric).all()
    assert tuned.best_metric.min() > plain.best_metric.max() + 0.2


@pytest.mark.slow
def test_another_student_loss_gets_its_arrays_and_its_key(teacher):
    loss = objectives.SampledLoss(STUDENT, samplers.uniform(NUM_ITEMS), "bce", num_negatives=2)
    expected = training.fit(jax.random.key(0), STUDENT, TRAIN, VALIDATION, loss=loss, max_steps=8, **FEW)
    actual = distill("FTD", teacher, None, weight=1e-30, loss=loss, max_steps=8)
    assert_same_training(actual, expected, atol=1e-6)


def test_the_students_loss_may_be_a_plain_function(teacher):
    def loss(params, batch):
        return objectives.InBatchBPR(STUDENT)(params, batch, jax.random.key(0))

    expected = training.fit(jax.random.key(0), STUDENT, TRAIN, VALIDATION, loss=loss, max_steps=8, **FEW)
    actual = distill("FTD", teacher, None, weight=1e-30, loss=loss, max_steps=8)
    assert_same_training(actual, expected, atol=1e-6)


def test_targets_that_the_teachers_vectors_do_not_match_are_refused(teacher):
    with pytest.raises(ValueError, match="targets is 'all'; expected 'last'"):
        distill("FTD", teacher, None, weight=0.1, targets="all")


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (ftd, {"weight": -1.0}, "weight is -1.0"),
        (ftd, {"weight": np.nan}, "weight is nan"),
        (htd, {"level": "both"}, "level is 'both'"),
        (htd, {"topology": 2.0}, "topology is 2.0"),
        (htd, {"num_groups": 0}, "num_groups is 0"),
        (de, {"num_experts": 0}, "num_experts is 0"),
        (de, {"temperature_end": 0.0}, "temperature_end is 0.0"),
        (rd, {"length": 0}, "length is 0"),
        (rd, {"mu": 0.0}, "mu is 0.0"),
        (unkd, {"depth": 1}, "depth is 1"),
        (dllm2rec, {"robust": -1.0}, "robust is -1.0"),
    ],
)
def test_options_out_of_range_are_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        module.Options(**options)


def test_full_topology_distillation_brings_the_students_angles_closer_to_the_teachers(teacher):
    def distance(params):
        def angles(model, params):
            table = model.apply(params, method="item_embeddings")[1:]
            table /= jnp.linalg.norm(table, axis=1, keepdims=True)
            return table @ table.T

        return jnp.abs(angles(STUDENT, params) - angles(TEACHER, teacher.params)).mean()

    def trained(weight):
        fitted = distill("FTD", teacher, None, weight=weight, seeds=2, max_steps=60)
        return jax.tree.map(lambda leaf: leaf[0], fitted.params)

    assert distance(trained(0.1)) < 0.8 * distance(trained(0.0))
