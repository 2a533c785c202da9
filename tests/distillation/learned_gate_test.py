"""The learned gate: its features, its prior, its loss against a reference, and which lists it lets through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models
from alkd_jax.distillation import learned_gate
from alkd_jax.objectives import InBatchBPR
from alkd_jax.types import Rankings, Sessions

NUM_ITEMS = 12


def made_sessions(num=20):
    rng = np.random.default_rng(0)
    mask = np.arange(4) < rng.integers(1, 5, (num, 1))
    items = np.where(mask, rng.integers(1, NUM_ITEMS + 1, (num, 4)), 0).astype(np.int32)
    target = rng.integers(1, NUM_ITEMS + 1, num).astype(np.int32)
    return Sessions(items=items, mask=mask, target=target, session_id=np.arange(100, 100 + num, dtype=np.int32))


def test_features_are_scaled_and_need_no_spread():
    sessions = made_sessions()
    popularity = np.arange(NUM_ITEMS + 1, dtype=np.float32)
    features = learned_gate.gate_features(sessions, popularity, np.full(20, 0.25, np.float32))
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(0), [1, 1, 0], atol=1e-5)
    length = sessions.mask.sum(1)
    assert np.corrcoef(features[:, 0], np.log(length))[0, 1] == pytest.approx(1)
    with pytest.raises(ValueError, match="uncertainty has 3 numbers; expected 20"):
        learned_gate.gate_features(sessions, popularity, np.zeros(3, np.float32))


def test_the_prior_is_a_divergence():
    assert float(learned_gate.sparsity_prior(jnp.float32(0.3), 0.3)) == pytest.approx(0, abs=1e-7)
    expected = 0.1 * np.log(0.1 / 0.5) + 0.9 * np.log(0.9 / 0.5)
    assert float(learned_gate.sparsity_prior(jnp.float32(0.1), 0.5)) == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(float(learned_gate.sparsity_prior(jnp.float32(0.0), 0.5)))


def test_the_loss_is_the_students_plus_gated_lists_plus_the_prior(key):
    train = made_sessions()
    lists = Rankings.from_top_k(train.session_id[[3, 7]], np.array([[1, 2, 3], [4, 5, -1]], np.int32))
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    params = models.init_params(key, model)
    params = {**params, "gate": {"weights": jnp.array([0.5, -1.0, 0.2]), "bias": jnp.float32(0.3)}}
    features = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    student = InBatchBPR(model)
    loss = learned_gate.GatedListLoss(model, student, jnp.asarray(features), 0.7, 0.4, 1.5)
    batch = learned_gate.gated_examples(lists, train).take(jnp.arange(20), train)
    found = float(loss(params, batch, key))
    own = {"params": params["params"]}
    vectors = np.asarray(model.apply(own, jnp.asarray(train.items), jnp.asarray(train.mask)), np.float64)
    scores = vectors @ np.asarray(model.apply(own, method="item_embeddings"), np.float64).T
    gates, of_lists = [], []
    for row, items in ((3, [1, 2, 3]), (7, [4, 5])):
        pairs = [np.log1p(np.exp(scores[row, b] - scores[row, a])) for n, a in enumerate(items) for b in items[n + 1 :]]
        gates.append(1 / (1 + np.exp(-(features[row] @ [0.5, -1.0, 0.2] + 0.3))))
        of_lists.append(gates[-1] * np.mean(pairs))
    mean = np.mean(gates)
    prior = mean * np.log(mean / 0.4) + (1 - mean) * np.log((1 - mean) / 0.6)
    assert found == pytest.approx(float(student(own, batch, key)) + 0.7 * np.mean(of_lists) + 1.5 * prior, rel=1e-4)


def test_the_gate_closes_for_lists_that_contradict_the_student(key):
    """Lists of long sessions are in the student's order, those of short ones reversed: the gate learns which."""
    train = made_sessions(40)
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    params = jax.tree.map(lambda leaf: 4 * leaf, models.init_params(key, model))
    order = np.argsort(
        -np.asarray(
            model.apply(params, jnp.asarray(train.items), jnp.asarray(train.mask))
            @ params["params"]["output_embedding"].T
        )
    )
    order = np.stack([row[row > 0][:6] for row in order])
    is_long = train.mask.sum(1) > 2
    lists = Rankings.from_top_k(train.session_id, np.where(is_long[:, None], order, order[:, ::-1]).astype(np.int32))
    features = np.stack([is_long * 2.0 - 1, np.zeros(40), np.zeros(40)], axis=1).astype(np.float32)
    loss = learned_gate.GatedListLoss(model, InBatchBPR(model), jnp.asarray(features), 1.0, 0.5, 1.0)
    batch = learned_gate.gated_examples(lists, train).take(jnp.arange(40), train)
    gate = {"weights": jnp.zeros(3), "bias": jnp.float32(0)}
    gradient = jax.grad(lambda gate: loss({**params, "gate": gate}, batch, key))(gate)
    assert gradient["weights"][0] < -1e-4
    np.testing.assert_array_equal(gradient["weights"][1:], 0)


@pytest.mark.usefixtures("unchecked_types")
def test_options_and_features_are_checked(key):
    for wrong, message in (
        ({"share": 1}, "share is 1"),
        ({"share": 0}, "share is 0"),
        ({"weight": -1}, "weight is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            learned_gate.Options(**wrong)
    train = made_sessions()
    lists = Rankings.from_top_k(train.session_id[:2], np.array([[1], [2]], np.int32))
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    with pytest.raises(ValueError, match=r"shape of features is \[3, 3\]; expected \[20, 3\]"):
        learned_gate.distill(key, model, {}, train, train, lists, features=np.zeros((3, 3), np.float32))
