"""Negative samplers: items are sampled with the stated probabilities, and the padding never is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import samplers


def frequencies(sampler, key, num_items, draws=200_000):
    drawn = np.asarray(sampler.draw(key, (draws,)))
    assert drawn.min() >= 1
    assert drawn.max() <= num_items
    return np.bincount(drawn, minlength=num_items + 1)[1:] / draws


def test_uniform_draws_every_item_alike(key):
    found = frequencies(samplers.uniform(7), key, 7)
    np.testing.assert_allclose(found, 1 / 7, atol=5 * np.sqrt(1 / 7 / 200_000))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_popularity_is_tempered_by_the_exponent(key, exponent):
    target = np.repeat([1, 2, 4], [80, 15, 3])
    wanted = (1.0 + np.array([80, 15, 0, 3])) ** exponent
    wanted /= wanted.sum()
    sampler = samplers.by_popularity(target, 4, exponent=exponent)
    np.testing.assert_allclose(np.exp(sampler.log_prob[1:]), wanted, rtol=1e-6)
    np.testing.assert_allclose(frequencies(sampler, key, 4), wanted, atol=5 * np.sqrt(0.25 / 200_000))


def test_the_number_of_random_words_of_an_item_is_exactly_its_probability(monkeypatch, key):
    sampler = samplers.by_popularity(np.array([1] * 10**6 + [3]), 3, exponent=1.0)
    upper = np.asarray(sampler.upper).astype(np.int64)
    edges = np.concatenate([[0], upper[1:] + 1])
    np.testing.assert_allclose(np.exp(np.asarray(sampler.log_prob[1:], np.float64)), np.diff(edges) / 2**32, rtol=1e-6)
    assert edges[-1] == 2**32
    for item in (1, 2, 3):
        words = jnp.asarray([edges[item - 1], edges[item] - 1], jnp.uint32)
        monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype, words=words: words)
        assert sampler.draw(key, (2,)).tolist() == [item, item]


def test_an_item_that_was_never_seen_can_still_be_drawn():
    sampler = samplers.by_popularity(np.array([1] * 10**7), 5000, exponent=2.0)
    assert (np.diff(np.asarray(sampler.upper).astype(np.int64))[1:] >= 1).all()
    assert np.isfinite(sampler.log_prob[1:]).all()
    assert np.isneginf(sampler.log_prob[0])


@pytest.mark.parametrize("exponent", [1e4, -1e4, 1e300, -1e300])
def test_an_extreme_exponent_leaves_the_most_probable_items(exponent):
    prob = np.exp(samplers.by_popularity(np.array([1, 1, 2, 2, 3]), 3, exponent=exponent).log_prob[1:])
    np.testing.assert_allclose(prob, [0.5, 0.5, 0] if exponent > 0 else [0, 0, 1], atol=1e-9)


def test_log_frequency_follows_the_targets():
    found = samplers.log_frequency(np.array([2, 2, 2, 1]), 3)
    np.testing.assert_allclose(np.exp(found), [0, 1.5 / 5.5, 3.5 / 5.5, 0.5 / 5.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.uniform(0), "num_items is 0"),
        (lambda: samplers.by_popularity(np.array([0, 1]), 3), "targets span 0..1; expected 1..3"),
        (lambda: samplers.uniform(2.5), "num_items is 2.5; expected a whole number"),
        (lambda: samplers.by_popularity(np.array([1.5]), 3), "targets are numbers of type float64"),
        (lambda: samplers.by_popularity(np.array([4]), 3), "targets span 4..4; expected 1..3"),
        (lambda: samplers.by_popularity(np.array([1]), 3, exponent=float("nan")), "exponent is nan"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
