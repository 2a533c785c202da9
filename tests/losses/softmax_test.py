"""Softmax and pointwise losses against closed forms; the chunked full softmax against a plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses


@pytest.fixture
def rows(key):
    keys = jax.random.split(key, 3)
    vectors, table = jax.random.normal(keys[0], (6, 4)), jax.random.normal(keys[1], (23, 4))
    return vectors, table, jax.random.randint(keys[2], (6,), 1, 23)


def plain_softmax(vectors, table, target, weight):
    """The full softmax by JAX's own differentiation, with all scores in memory."""
    scores = (vectors @ table.T).at[:, 0].set(-jnp.inf)
    row_losses = jax.nn.logsumexp(scores, axis=1) - jnp.take_along_axis(scores, target[:, None], axis=1)[:, 0]
    return losses.weighted_mean(row_losses, weight)


def test_full_softmax_by_hand_leaves_padding_out(rows):
    vectors, table, target = rows
    scores = np.asarray(vectors @ table.T, np.float64)
    expected = np.mean([np.log(np.exp(s[1:]).sum()) - s[t] for s, t in zip(scores, target, strict=True)])
    np.testing.assert_allclose(losses.full_softmax(vectors, table, target), expected, rtol=1e-6)
    poisoned = table.at[0].set(50.0)
    np.testing.assert_allclose(losses.full_softmax(vectors, poisoned, target), expected, rtol=1e-6)


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 23, 100])
def test_full_softmax_has_the_value_and_gradient_of_a_plain_one_in_any_chunks(rows, chunk_size):
    vectors, table, target = rows
    weight = jnp.asarray([1.0, 0.0, 2.0, 1.0, 0.5, 1.0])

    def chunked(u, y):
        return losses.full_softmax(u, y, target, weight=weight, chunk_size=chunk_size)

    def plain(u, y):
        return plain_softmax(u, y, target, weight)

    both = [jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(vectors, table) for loss in (chunked, plain)]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not both[0][1][1][0].any(), "the padding row has no gradient"


def test_full_softmax_of_several_vectors_scores_by_their_log_sum_exp(key):
    vectors, table = jax.random.normal(key, (3, 2, 4)), jax.random.normal(jax.random.key(1), (9, 4))
    target = jnp.asarray([1, 5, 8])
    scores = np.log(np.exp(np.asarray(vectors @ table.T, np.float64)).sum(1))
    expected = np.mean([np.log(np.exp(s[1:]).sum()) - s[t] for s, t in zip(scores, target, strict=True)])
    for chunk_size in (None, 4):
        loss = losses.full_softmax(vectors, table, target, chunk_size=chunk_size)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_full_softmax_in_chunks_never_holds_all_scores():
    shapes = jax.ShapeDtypeStruct((64, 8), jnp.float32), jax.ShapeDtypeStruct((100_000, 8), jnp.float32)
    target = jnp.ones(64, jnp.int32)

    def temporaries(chunk_size):
        loss = lambda u, y: losses.full_softmax(u, y, target, chunk_size=chunk_size)  # noqa: E731
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    chunked = temporaries(1000)
    assert chunked < 64 * 100_000 * 4 / 2
    assert chunked < temporaries(None) / 3


def test_sampled_softmax_over_everything_with_equal_probabilities_is_the_full_one(rows):
    vectors, table, target = rows
    scores = vectors @ table.T
    others = jnp.arange(1, 23)[None] != target[:, None]
    own = jnp.take_along_axis(scores, target[:, None], axis=1)[:, 0]
    loss = losses.sampled_softmax(
        own, scores[:, 1:], log_prob_positive=jnp.zeros(6), log_prob_negative=jnp.zeros((6, 22)), where=others
    )
    np.testing.assert_allclose(loss, losses.full_softmax(vectors, table, target), rtol=1e-5)


def test_sampled_softmax_corrects_for_what_is_sampled_often():
    # Items are sampled with probability q and corrected by log q: the mean over many samples is the partition function.
    rng = np.random.default_rng(0)
    score, prob = rng.normal(size=50), rng.dirichlet(np.ones(50))
    drawn = rng.choice(50, (1, 200_000), p=prob)
    loss = losses.sampled_softmax(
        jnp.zeros(1),
        jnp.asarray(score[drawn], jnp.float32),
        log_prob_positive=jnp.full(1, np.log(1 / 200_000)),
        log_prob_negative=jnp.asarray(np.log(prob[drawn]), jnp.float32),
    )
    expected = np.log((1 + np.exp(score).sum() / 1) * 200_000) - np.log(200_000)
    np.testing.assert_allclose(loss, expected, rtol=0.02)


def test_listwise_softmax_by_hand_with_a_short_and_an_empty_list():
    scores = jnp.asarray([[1.0, 0.0, 9.0], [0.5, -0.5, 0.0], [3.0, 3.0, 3.0]])
    gain = jnp.asarray([[3.0, 1.0, 7.0], [2.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    where = jnp.asarray([[True, True, False], [True, True, True], [False, False, False]])
    first = -(0.75 * 1.0 + 0.25 * 0.0 - np.log(np.exp(1.0) + 1.0))
    second = -(0.5 * 0.5 - 0.25 * 0.5 - np.log(np.exp(0.5) + np.exp(-0.5) + 1.0))
    value, gradient = jax.value_and_grad(lambda s: losses.listwise_softmax(s, gain, where=where))(scores)
    np.testing.assert_allclose(value, (first + second) / 2, rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert not gradient[2].any()
    assert gradient[0, 2] == 0


def test_binary_cross_entropy_by_hand():
    positive, negative = jnp.asarray([1.0, -2.0]), jnp.asarray([[0.5, 3.0], [1.0, 2.0]])
    softplus = lambda x: np.log1p(np.exp(x))  # noqa: E731
    rows = [softplus(-1.0) + (softplus(0.5) + softplus(3.0)) / 2, softplus(2.0) + (softplus(1.0) + softplus(2.0)) / 2]
    np.testing.assert_allclose(losses.binary_cross_entropy(positive, negative), np.mean(rows), rtol=1e-6)
    where, weight = jnp.asarray([[1.0, 0.0], [1.0, 1.0]]), jnp.asarray([3.0, 1.0])
    expected = (3 * (softplus(-1.0) + softplus(0.5)) + rows[1]) / 4
    found = losses.binary_cross_entropy(positive, negative, where=where, weight=weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sampled_bpr_by_hand():
    positive, negative = jnp.asarray([1.0, -2.0]), jnp.asarray([[0.5, 3.0], [1.0, 2.0]])
    expected = np.mean(np.log1p(np.exp(np.asarray(negative) - np.asarray(positive)[:, None])))
    np.testing.assert_allclose(losses.sampled_bpr(positive, negative), expected, rtol=1e-6)
    only_first = losses.sampled_bpr(positive, negative, weight=jnp.asarray([1.0, 0.0]), where=jnp.eye(2))
    np.testing.assert_allclose(only_first, np.log1p(np.exp(-0.5)), rtol=1e-6)


def test_a_bad_chunk_size_is_refused(rows):
    with pytest.raises(ValueError, match="chunk_size is 0"):
        losses.full_softmax(*rows, chunk_size=0)
