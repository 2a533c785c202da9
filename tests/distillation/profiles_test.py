"""Profile distillation against an independent reference, its two stages, its budget mask, and its files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import models, objectives, training
from alkd_jax.data.profile_vectors import ProfileVectors, read_profiles
from alkd_jax.distillation import profiles
from alkd_jax.distillation.profiles import DECODER, ProfileDistillation
from alkd_jax.types import Batch

DATASET = alkd.data.synthetic(num_items=40, num_sessions=200)
TRAIN, VALIDATION = DATASET.train, DATASET.validation
MODEL = models.create("fpmc", num_items=40, dim=5)
KEY = jax.random.key(0)
FEW = {"seeds": 1, "max_steps": 20, "batch_size": 32, "learning_rate": 0.01, "keep_best": False}


def some_profiles(num=60, width=7, seed=0):
    rng = np.random.default_rng(seed)
    session_id = rng.permutation(np.asarray(TRAIN.session_id))[:num]
    return ProfileVectors(session_id, rng.normal(size=(num, width)).astype(np.float32))


def batch(size=16, step=0):
    rows = np.arange(size)
    taken = TRAIN.take(rows)
    weight = jnp.asarray(rows < size - 2, jnp.float32)
    arrays = (jnp.asarray(array) for array in (taken.items, taken.mask, rows, taken.target))
    return Batch(*arrays, weight, jnp.asarray(rows), step)


def objective(alpha=0.4, first_steps=10.0, has_profile=None):
    reduced, known = profiles.reduced_profiles(some_profiles(), TRAIN, 3)
    known = known if has_profile is None else np.full_like(known, has_profile)
    student = objectives.InBatchBPR(MODEL)
    arrays = jnp.asarray(reduced), jnp.asarray(known), jnp.float32(alpha), jnp.float32(first_steps)
    return ProfileDistillation(MODEL, student, *arrays)


def params(seed=3):
    own = models.init_params(jax.random.key(seed), MODEL)
    return {**own, **profiles.DecoderInit(3)(jax.random.key(seed + 1), MODEL)}


def test_the_loss_is_that_of_an_independent_reference():
    found, own = objective(), float(objectives.InBatchBPR(MODEL)(params(), batch(), KEY))
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params())
    total, count = 0.0, 0
    for row in range(14):  # The last two have weight 0.
        if found.has_profile[row] == 0:
            continue
        items = np.asarray(TRAIN.items)[row][np.asarray(TRAIN.mask)[row]]
        user = tree["params"]["input_embedding"][items].mean(0)
        decoded = user @ tree[DECODER]["kernel"] + tree[DECODER]["bias"]
        total, count = total + ((decoded - np.asarray(found.profiles)[row]) ** 2).mean(), count + 1
    assert 0 < count < 14
    assert float(found.distance(params(), batch(), KEY)) == pytest.approx(total / count, rel=1e-5)
    # β makes both parts as large as the student's loss: α L + (1 − α) L.
    assert float(found(params(), batch(), KEY)) == pytest.approx(own, rel=1e-5)


def test_the_gradient_is_the_weighted_sum_and_none_goes_through_the_ratio():
    found, student = objective(alpha=0.3), objectives.InBatchBPR(MODEL)
    own, own_gradient = jax.value_and_grad(student)(params(), batch(), KEY)
    distance, of_distance = jax.value_and_grad(found.distance)(params(), batch(), KEY)
    expected = jax.tree.map(lambda left, right: 0.7 * left + 0.3 * (own / distance) * right, own_gradient, of_distance)
    for left, right in zip(*map(jax.tree.leaves, (jax.grad(found)(params(), batch(), KEY), expected)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_the_second_stage_is_the_students_own_loss():
    gradient = jax.grad(objective(first_steps=10.0))(params(), batch(step=10), KEY)
    expected = jax.grad(objectives.InBatchBPR(MODEL))(params(), batch(step=10), KEY)
    for left, right in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-7)


def test_sessions_without_a_profile_say_nothing():
    found = objective()
    other = found.replace(profiles=found.profiles + 100.0 * (1 - found.has_profile)[:, None])
    for function in (found.distance, jax.grad(found)):
        of_other = other.distance if function == found.distance else jax.grad(other)
        for left, right in zip(
            *map(jax.tree.leaves, (function(params(), batch(), KEY), of_other(params(), batch(), KEY))), strict=True
        ):
            np.testing.assert_array_equal(left, right)
    none = objective(has_profile=0.0)
    assert float(none.distance(params(), batch(), KEY)) == 0
    assert np.isfinite(float(none(params(), batch(), KEY)))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.grad(none)(params(), batch(), KEY)))


def test_students_learn_what_profiles_tell_and_without_weight_are_the_plain_ones():
    plain = training.fit(KEY, MODEL, TRAIN, VALIDATION, **FEW)
    same = profiles.distill(KEY, MODEL, some_profiles(), TRAIN, VALIDATION, options=profiles.Options(alpha=0.0), **FEW)
    for left, right in zip(*map(jax.tree.leaves, (same.params, plain.params)), strict=True):
        np.testing.assert_array_equal(left, right)
    options = profiles.Options(alpha=0.9, first_steps=1.0, dim=3)
    taught = profiles.distill(KEY, MODEL, some_profiles(), TRAIN, VALIDATION, options=options, **FEW)
    assert taught.params.keys() == plain.params.keys(), "the decoder is not returned"
    assert not np.array_equal(taught.params["params"]["input_embedding"], plain.params["params"]["input_embedding"])


def test_components_of_profiles_have_variance_1_and_a_vector_of_zeros_is_a_profile():
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    vectors[3] = 0
    found, known = profiles.reduced_profiles(ProfileVectors(np.asarray(TRAIN.session_id)[:30], vectors), TRAIN, 4)
    assert known.sum() == 30
    np.testing.assert_allclose(found[:30].T @ found[:30] / 30, np.eye(4), atol=1e-4)
    assert not found[30:].any()


def test_files_of_profiles_are_read_and_bad_ones_refused(tmp_path):
    file, given = tmp_path / "p.npz", some_profiles()
    np.savez(file, session_id=given.session_id, vectors=given.vectors)
    np.testing.assert_array_equal(read_profiles(file).vectors, given.vectors)
    for arrays, message in (
        ({"vectors": given.vectors}, "expected session_id and vectors"),
        ({"session_id": given.session_id[:3], "vectors": given.vectors}, r"expected \[M\] and \[M, P\]"),
        ({"session_id": np.zeros(60, int), "vectors": given.vectors}, "session 0 has 60 vectors; expected one"),
        ({"session_id": given.session_id, "vectors": np.full((60, 2), np.inf)}, "vectors"),
        ({"session_id": given.session_id, "vectors": given.vectors.astype(str)}, "expected numbers"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(ValueError, match=message):
            read_profiles(file)
    other = ProfileVectors(np.array([10**6]), np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="none of the 1 profiles is of a training session"):
        profiles.reduced_profiles(other, TRAIN, 2)
    equal = ProfileVectors(np.asarray(TRAIN.session_id)[:3], np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="are equal"):
        profiles.reduced_profiles(equal, TRAIN, 2)


def test_options_out_of_range_are_refused():
    for options in ({"alpha": 1.0}, {"alpha": -0.1}, {"first_steps": 0.0}, {"dim": 0}):
        with pytest.raises(ValueError, match="expected"):
            profiles.Options(**options)
    with pytest.raises(ValueError, match="targets is 'all'"):
        profiles.distill(KEY, MODEL, some_profiles(), TRAIN, VALIDATION, targets="all")
