"""Losses of every position against plain NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import objectives, samplers
from alkd_jax.data.sessions import pack
from alkd_jax.training.shifted import shifted_sequences
from tests.helpers.causal_mean import CausalMean

NUM_ITEMS, NUM_NEGATIVES = 9, 4


@pytest.fixture(scope="module")
def case():
    """A backbone, its parameters, a batch, and what every position has: vector, target and weight."""
    sequences = pack([[1, 2, 3, 4], [5, 6], [7, 8, 9]])
    examples = shifted_sequences(sequences, length=4)
    batch = examples.take(jnp.arange(3), sequences)
    model = CausalMean(NUM_ITEMS, 3)
    params = model.init(jax.random.key(0), batch.items, batch.mask)
    vectors = np.float64(model.apply(params, batch.items, batch.mask, method="encode_positions"))
    return model, params, batch, vectors, np.float64(params["params"]["output_embedding"])


def softplus(x):
    return np.log1p(np.exp(x))


def total(batch, losses):
    weight = np.float64(batch.weight)
    return sum(weight[place] * losses(*place) for place in zip(*np.nonzero(batch.mask), strict=True))


def test_full_softmax_of_every_position(case):
    model, params, batch, vectors, table = case

    def loss(b, position):
        scores = table[1:] @ vectors[b, position]
        return np.log(np.exp(scores).sum()) - scores[batch.target[b, position] - 1]

    found = objectives.PositionSoftmax(model)(params, batch, jax.random.key(1))
    np.testing.assert_allclose(found, total(batch, loss), rtol=1e-5)
    chunked = objectives.PositionSoftmax(model, chunk_size=4)(params, batch, jax.random.key(1))
    np.testing.assert_allclose(chunked, found, rtol=1e-5)


@pytest.mark.parametrize("negatives", ["position", "session", "batch"])
@pytest.mark.parametrize("kind", ["softmax", "corrected", "bce", "gbce"])
def test_sampled_losses_of_every_position(case, kind, negatives):
    model, params, batch, vectors, table = case
    options = {"num_negatives": NUM_NEGATIVES, "negatives": negatives, "corrected": kind == "corrected"}
    kind = "softmax" if kind == "corrected" else kind
    loss = objectives.PositionSampledLoss(model, samplers.uniform(NUM_ITEMS), kind, **options)
    drawn = np.asarray(loss.candidates(batch, jax.random.key(1)))
    assert drawn.shape == {"position": (3, 3, 4), "session": (3, 4), "batch": (1, 4)}[negatives]
    drawn = drawn if negatives == "position" else drawn[:, None]
    drawn = np.broadcast_to(drawn, (*batch.mask.shape, NUM_NEGATIVES))
    rate = NUM_NEGATIVES / (NUM_ITEMS - 1)

    def value(b, position):
        target = int(batch.target[b, position])
        scores = table @ vectors[b, position]
        others = [scores[item] for item in drawn[b, position] if item != target]
        if kind == "softmax":
            # A uniform sample of C items out of V counts V / C times each.
            factor = NUM_ITEMS / NUM_NEGATIVES if options["corrected"] else 1
            return np.log(np.exp(scores[target]) + factor * np.exp(others).sum()) - scores[target]
        if kind == "bce":
            return softplus(-scores[target]) + (np.mean(softplus(np.array(others))) if others else 0)
        beta = rate * (0.75 * (1 - 1 / rate) + 1 / rate)
        return (beta * softplus(-scores[target]) + softplus(np.array(others)).sum()) / (NUM_NEGATIVES + 1)

    np.testing.assert_allclose(loss(params, batch, jax.random.key(1)), total(batch, value), rtol=1e-5)


def test_the_negatives_of_a_position_do_not_depend_on_the_length_of_the_batch(case):
    model, _, batch, _, _ = case
    loss = objectives.PositionSampledLoss(model, samplers.uniform(NUM_ITEMS))
    whole = loss.candidates(batch, jax.random.key(1))
    fields = "items", "mask", "target", "weight"
    shorter = batch.replace(**{name: getattr(batch, name)[:, :2] for name in fields})
    cut = loss.candidates(shorter, jax.random.key(1))
    np.testing.assert_array_equal(whole[:, :2], cut)
    assert (whole[:, 0] != whole[:, 1]).any()


def test_unknown_options_are_refused(case):
    model = case[0]
    for options, message in (
        ({"kind": "bpr"}, "kind is 'bpr'; expected"),
        ({"negatives": "item"}, "negatives is 'item'; expected"),
        ({"num_negatives": 0}, "num_negatives is 0; expected"),
    ):
        with pytest.raises(ValueError, match=message):
            objectives.PositionSampledLoss(model, samplers.uniform(3), **options)
