"""Late interaction: the score is its definition on every path that ranks or learns; soft labels are others' counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import baselines, evaluation, models, objectives, scoring, training
from alkd_jax.distillation.soft_labels import held_out_labels
from alkd_jax.training.examples import cloze_examples, prefix_examples
from alkd_jax.types import Batch, Sequences, Sessions

NUM_ITEMS = 30


@pytest.fixture(scope="module", params=["plain", "shared"])
def model(request):
    options = {"shared": True, "recency": 0.6} if request.param == "shared" else {}
    return models.create("late", num_items=NUM_ITEMS, dim=4, **options)


@pytest.fixture(scope="module")
def params(model):
    drawn = models.init_params(jax.random.key(0), model)
    keys = jax.random.split(jax.random.key(1), len(drawn["params"]))
    grown = {
        name: 3 * leaf if name.endswith("_embedding") else jax.random.normal(key, leaf.shape)
        for key, (name, leaf) in zip(keys, drawn["params"].items(), strict=True)
    }
    return {"params": grown}


@pytest.fixture(scope="module")
def sessions():
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(NUM_ITEMS)[:6] + 1 for _ in range(20)]).astype(np.int32)
    mask = np.arange(6) < rng.integers(1, 6, 20)[:, None]
    return Sessions(
        items=np.where(mask, items, 0), mask=mask, target=items[:, 5], session_id=np.arange(20, dtype=np.int32)
    )


@pytest.fixture
def by_hand(model, params, sessions):
    own = {name: np.asarray(leaf, np.float64) for name, leaf in params["params"].items()}
    left, right = own["input_embedding"], own["output_embedding"]
    if model.shared:
        right = np.concatenate([left, right], axis=1)
        left = right @ own["interaction_kernel"]
    scores = np.zeros((20, NUM_ITEMS + 1))
    for s, (items, mask) in enumerate(zip(sessions.items, sessions.mask, strict=True)):
        weight = model.recency ** np.arange(mask.sum())[::-1]
        each = [w * np.exp(left[x] @ right.T + own["input_bias"][x]) for w, x in zip(weight, items[mask], strict=True)]
        scores[s] = np.log(np.sum(each, 0)) + own["output_bias"]
    return scores


def vectors_and_table(model, params, sessions):
    vectors = model.apply(params, jnp.asarray(sessions.items), jnp.asarray(sessions.mask))
    return vectors, model.apply(params, method="item_embeddings")


def test_the_score_is_its_definition(model, params, sessions, by_hand):
    vectors, table = vectors_and_table(model, params, sessions)
    np.testing.assert_allclose(scoring.scores(vectors, table)[:, 1:], by_hand[:, 1:], atol=1e-5)
    listed = jnp.asarray([[3, 7, 9]] * 20)
    np.testing.assert_allclose(scoring.candidate_scores(vectors, table[listed]), by_hand[:, [3, 7, 9]], atol=1e-4)


def test_ranks_and_lists_follow_the_definition(model, params, sessions, by_hand):
    allowed = by_hand.copy()
    allowed[:, 0] = -np.inf
    for s, (items, mask) in enumerate(zip(sessions.items, sessions.mask, strict=True)):
        allowed[s, items[mask]] = -np.inf
    own = allowed[np.arange(20), sessions.target]
    out = evaluation.evaluate(model, params, sessions)
    np.testing.assert_array_equal(out.ranks, 1 + (allowed > own[:, None]).sum(1))
    vectors, table = vectors_and_table(model, params, sessions)
    _, ids = scoring.top_k(vectors, table, 5, exclude=jnp.asarray(sessions.items), chunk_size=8)
    np.testing.assert_array_equal(ids, np.argsort(-allowed, axis=1)[:, :5])


def make_batch(sessions):
    rows = jnp.arange(20)
    return Batch(
        items=jnp.asarray(sessions.items),
        mask=jnp.asarray(sessions.mask),
        session=rows,
        target=jnp.asarray(sessions.target),
        weight=jnp.ones(20),
        row=rows,
    )


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_softmax_over_the_catalogue_by_hand(model, params, sessions, by_hand, key, chunk_size):
    log_z = np.log(np.exp(by_hand[:, 1:]).sum(1))
    own = by_hand[np.arange(20), sessions.target]
    loss = objectives.FullSoftmax(model, chunk_size=chunk_size)
    assert float(loss(params, make_batch(sessions), key)) == pytest.approx((log_z - own).mean(), rel=1e-5)

    lists = np.array([[1, 2, 0], [0, 0, 0]] * 10)
    gain = np.array([[3.0, 1.0, 9.0], [0.0, 0.0, 0.0]] * 10)
    listed = (3 * by_hand[:, 1] + by_hand[:, 2]) / 4
    wanted = np.where(np.arange(20) % 2 == 0, 0.6 * own + 0.4 * listed, own)
    loss = objectives.DistilledSoftmax(
        model, jnp.asarray(lists), jnp.asarray(gain, jnp.float32), share=0.4, chunk_size=chunk_size
    )
    assert float(loss(params, make_batch(sessions), key)) == pytest.approx((log_z - wanted).mean(), rel=1e-5)


def test_gradients_reach_real_items_and_no_others(model, params, sessions, key):
    gradient = jax.grad(objectives.FullSoftmax(model))(params, make_batch(sessions), key)["params"]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    seen = np.unique(sessions.items[sessions.mask])
    unseen = np.setdiff1d(np.arange(NUM_ITEMS + 1), seen)
    assert (np.abs(gradient["input_embedding"][seen]).sum(1) > 0).all()
    if model.shared:
        assert (np.asarray(gradient["input_embedding"])[0] == 0).all()
    else:
        assert (np.asarray(gradient["input_embedding"])[unseen] == 0).all()
    assert (np.asarray(gradient["input_bias"])[unseen] == 0).all()
    assert (np.asarray(gradient["output_embedding"])[0] == 0).all()


def test_item_dropout_leaves_the_last_item(model, params, sessions, key):
    dropping = model.clone(item_dropout=1.0)
    items, mask = jnp.asarray(sessions.items), jnp.asarray(sessions.mask)
    vectors = dropping.apply(params, items, mask, train=True, rngs={"dropout": key})
    left = np.asarray(vectors[..., -2] > -1e8)
    np.testing.assert_array_equal(left.sum(1), 1)
    np.testing.assert_array_equal(left.argmax(1), sessions.mask.sum(1) - 1)
    np.testing.assert_array_equal(dropping.apply(params, items, mask), model.apply(params, items, mask))


def test_it_trains(model, sessions):
    loss, options = objectives.InBatchBPR(model), dict(max_steps=40, steps_per_validation=20, learning_rate=0.05)
    out = training.fit(jax.random.key(0), model, sessions, sessions, seeds=2, loss=loss, recall_at=5, **options)
    assert (out.best_metric > out.history.recall[:, 0] + 0.3).all()


@pytest.mark.parametrize("recency", [0.0, 1.5])
def test_an_impossible_recency_is_refused(recency):
    with pytest.raises(ValueError, match=f"recency is {recency}"):
        models.init_params(jax.random.key(0), models.create("late", num_items=3, dim=2, recency=recency))


SEQUENCES = Sequences(items=np.array([1, 2, 3, 1, 2, 4, 7, 8], np.int32), offsets=np.array([0, 3, 6, 8], np.int32))


@pytest.mark.parametrize("make", [cloze_examples, prefix_examples])
def test_soft_labels_are_counted_in_other_sessions_only(make):
    examples = make(SEQUENCES)
    items, gain = held_out_labels(baselines.method("co_occurrence"), SEQUENCES, 8, examples, k=2, folds=3)
    position = np.asarray(examples.position)
    alone = np.asarray(examples.session) == 2
    assert (gain[alone] < 1e-5).all(), "items 7 and 8 stand together in their own session only"
    before_third = position == 2
    assert items[before_third].tolist()[0][0] == 4, "session 1 2 4 says 4 after 1 2; session 1 2 3 may not say 3"
    assert gain[before_third][0, 0] == pytest.approx(2, abs=1e-5)


def test_too_few_or_too_many_folds_are_refused():
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"folds is {folds}"):
            held_out_labels(baselines.method("markov"), SEQUENCES, 8, prefix_examples(SEQUENCES), folds=folds)
