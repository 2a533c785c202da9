"""DLLM2Rec: importance weights, agreement, the robust loss, and that L_rd is the base loss on the listed items."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives
from alkd_jax.distillation import dllm2rec, robust
from alkd_jax.types import Batch, Rankings, Sessions

NUM_ITEMS = 30


def weights(agreed, **options):
    return np.asarray(dllm2rec.importance_weights(jnp.asarray(agreed)[None], **options)[0])


def test_position_alone_ignores_the_student():
    for agreed in ([True] * 10, [False] * 10, [True] + [False] * 9):
        actual = weights(agreed, consistency=0.0)
        expected = np.exp(-np.arange(1.0, 11))
        np.testing.assert_allclose(actual, expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(actual[:3], [0.632, 0.233, 0.086], atol=5e-4)


def test_weights_with_agreement_equal_values_computed_by_hand():
    all_hits = weights([True] * 10)
    np.testing.assert_allclose([all_hits[0], all_hits[-1]], [0.223, 0.077], atol=5e-4)
    np.testing.assert_allclose(weights([False] * 10), weights([False] * 10, consistency=0.0), atol=1e-6)
    assert weights([False] * 9 + [True])[-1] == pytest.approx(0.25, abs=1e-3)


def test_weights_sum_to_one_over_the_items_of_a_list():
    where = jnp.array([[True, True, False, False]])
    actual = weights([True, False, True, True], where=where)
    assert actual.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(actual[2:], 0)
    np.testing.assert_array_equal(weights([True] * 4, where=where & False), 0)
    assert weights([True]).tolist() == [1.0]


def test_confidence_favors_near_items_and_needs_distances():
    agreed, distance = jnp.zeros((1, 3), bool), jnp.array([[2.0, 0.0, 1.0]])
    actual = dllm2rec.importance_weights(agreed, distance=distance, position=0.0, confidence=0.5, consistency=0.0)
    expected = np.exp([-2.0, 0.0, -1.0])
    np.testing.assert_allclose(actual[0], expected / expected.sum(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"confidence is 0.5 and distance is None"):
        dllm2rec.importance_weights(agreed, confidence=0.5)


def test_agreement_is_membership_of_the_students_top_list():
    scores = jax.random.normal(jax.random.key(0), (6, NUM_ITEMS + 1)).at[:, 0].set(99.0)
    listed = jax.random.randint(jax.random.key(1), (6, 8), 1, NUM_ITEMS + 1)
    actual = dllm2rec.agreement(scores, listed)
    for row in range(6):
        top = 1 + np.argsort(-np.asarray(scores[row, 1:]))[:8]
        assert actual[row].tolist() == np.isin(listed[row], top).tolist()
    assert actual.any()
    assert not actual.all()


def test_the_robust_loss_equals_its_definition_and_is_finite_for_large_scores():
    scores = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    target, counts = np.array([[1, 4], [7, 7], [2, 3]]), np.array([0, 5, 0, 1, 9, 2, 2, 3])
    share = robust.robust_popularity(jnp.asarray(counts))
    smoothed = (counts + 1.0)[1:]
    np.testing.assert_allclose(share[1:], (smoothed / smoothed.sum()) ** 0.05, rtol=1e-5)
    actual = robust.robust_loss(jnp.asarray(scores), jnp.asarray(target), share, beta=0.5)
    p = np.asarray(share, np.float64)
    for b in range(3):
        for r, i in enumerate(target[b]):
            s = scores[b].astype(np.float64)
            total = np.exp(p[1:] * s[1:] ** 2 / 0.5).sum()
            total += np.exp(p[i] * (s[i] - 1) ** 2 / 0.5) - np.exp(p[i] * s[i] ** 2 / 0.5)
            assert actual[b, r] == pytest.approx(np.log(total), rel=1e-5)
    large = jax.grad(lambda s: robust.robust_loss(s, jnp.asarray(target), share).sum())(jnp.asarray(scores) * 100)
    assert jnp.isfinite(large).all()


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    items = rng.integers(1, NUM_ITEMS + 1, (12, 4)).astype(np.int32)
    target = rng.integers(1, NUM_ITEMS + 1, 12).astype(np.int32)
    train = Sessions(items, items > 0, target, np.arange(100, 112, dtype=np.int32))
    listed = np.stack([rng.permutation(NUM_ITEMS)[:6] + 1 for _ in range(5)]).astype(np.int32)
    mask = np.ones((5, 6), bool)
    mask[4] = False
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    params = jax.tree.map(lambda a: 3 * a, models.init_params(jax.random.key(0), model))
    return train, Rankings(np.array([103, 100, 111, 107, 105], np.int32), listed, mask), model, params


TERM = robust.RobustTerm(0.5, 1.0, robust.robust_popularity(jnp.arange(NUM_ITEMS + 1)))


def batch_of(lists, rows):
    rows = jnp.asarray(rows)
    return Batch(
        items=lists.items[rows],
        mask=lists.mask[rows],
        session=lists.session[rows],
        target=jnp.ones(len(rows), jnp.int32),
        weight=jnp.ones(len(rows)),
        row=rows,
    )


def test_lists_are_joined_with_their_sessions_and_empty_ones_are_left_out(case):
    train, rankings, _, _ = case
    lists, examples = dllm2rec.sessions_with_lists(rankings, train, 4)
    assert lists.session.tolist() == [3, 0, 11, 7]
    assert examples.session.tolist() == [3, 0, 11, 7]
    np.testing.assert_array_equal(lists.items, train.items[[3, 0, 11, 7]])
    np.testing.assert_array_equal(lists.list_items, rankings.items[:4, :4])
    with pytest.raises(ValueError, match="rankings holds no items"):
        dllm2rec.sessions_with_lists(rankings.replace(mask=rankings.mask & False), train, 4)


def test_a_list_of_one_is_the_base_loss_on_the_pseudo_label(case):
    train, rankings, model, params = case
    lists, _ = dllm2rec.sessions_with_lists(rankings, train, 1)
    base = objectives.InBatchBPR(model)
    batch = batch_of(lists, [0, 1, 2, 3])
    expected = base(params, batch.replace(target=lists.list_items[:, 0]), jax.random.key(1))
    actual = dllm2rec.ImportanceWeightedLists(model, base, lists)(params, batch, jax.random.key(1))
    assert actual == pytest.approx(float(expected), rel=1e-5)


def pointwise(model):
    """A base loss that is a weighted mean over rows, so that L_rd can be written out."""

    def loss(params, batch, key):
        vectors = objectives.encode(model, params, batch, key)
        scores = (vectors * model.apply(params, method="item_embeddings")[batch.target]).sum(-1)
        return (batch.weight * jax.nn.softplus(-scores)).sum() / batch.weight.sum()

    return objectives.as_loss(loss)


@pytest.mark.parametrize("term", [None, TERM])
def test_the_ranking_loss_is_the_sum_over_positions_of_the_mean_over_sessions(case, term):
    train, rankings, model, params = case
    lists, _ = dllm2rec.sessions_with_lists(rankings, train, 5)
    base = pointwise(model)
    batch = batch_of(lists, [2, 0, 3])
    loss = dllm2rec.ImportanceWeightedLists(model, base, lists, robust=term)
    actual = loss(params, batch, jax.random.key(0))
    table = model.apply(params, method="item_embeddings")
    scores = model.apply(params, batch.items, batch.mask) @ table.T
    listed = lists.list_items[jnp.array([2, 0, 3])]
    weight = dllm2rec.importance_weights(dllm2rec.agreement(scores, listed))
    expected = jax.nn.softplus(-jnp.take_along_axis(scores, listed, axis=1))
    if term is not None:
        expected += 0.5 * robust.robust_loss(scores, listed, term.popularity)
    assert actual == pytest.approx(float((weight * expected).mean(0).sum()), rel=1e-5)


def test_a_sample_as_large_as_the_lists_holds_all_of_them(case):
    train, rankings, model, params = case
    lists, _ = dllm2rec.sessions_with_lists(rankings, train, 5)
    base = pointwise(model)
    batch = batch_of(lists, [0, 1, 2, 3])
    every = dllm2rec.ImportanceWeightedLists(model, base, lists)
    sampled = every.replace(list_batch=4)(params, batch, jax.random.key(5))
    assert sampled == pytest.approx(float(every(params, batch, jax.random.key(0))), rel=1e-5)


def test_no_gradient_passes_through_the_weights(case):
    scores = jax.random.normal(jax.random.key(0), (2, 5))
    grown = jax.grad(lambda s: dllm2rec.importance_weights(s > 0, position=s.sum()).max())(scores)
    np.testing.assert_array_equal(grown, 0.0)


def test_the_robust_loss_is_added_to_the_students_loss(case):
    train, rankings, model, params = case
    lists, _ = dllm2rec.sessions_with_lists(rankings, train, 5)
    base = pointwise(model)
    batch = batch_of(lists, [2, 0, 3]).replace(weight=jnp.array([1.0, 0.0, 1.0]))
    scores = model.apply(params, batch.items, batch.mask) @ model.apply(params, method="item_embeddings").T
    worst = robust.robust_loss(scores, batch.target[:, None], TERM.popularity, beta=TERM.beta)[:, 0]
    expected = base(params, batch, jax.random.key(0)) + 0.5 * (worst[0] + worst[2]) / 2
    actual = robust.RobustLoss(model, base, TERM)(params, batch, jax.random.key(0))
    assert actual == pytest.approx(float(expected), rel=1e-5)
