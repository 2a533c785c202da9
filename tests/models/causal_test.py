import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, objectives
from alkd_jax.models import CausalEncoder, hstu
from alkd_jax.models.encoder import times_for
from tests.helpers import causal_reference

NUM_ITEMS, DIM, LENGTH, LONGEST = 20, 8, 9, 7

VARIANTS = {
    "sasrec": {"blocks": 2, "heads": 2},
    "sasrec pre-norm": {"variant": "pre_norm", "multiplier": 3},
    "gsasrec": {"separate": True},
    "esasrec": {"heads": 2, "blocks": 2},
    "hstu": {"blocks": 2, "heads": 2},
    "hstu length": {"divisor": "length"},
    "hstu time": {"blocks": 2, "time": True},
}


@pytest.fixture(params=VARIANTS)
def model(request):
    return models.create(
        request.param.split()[0], num_items=NUM_ITEMS, dim=DIM, max_length=LENGTH, **VARIANTS[request.param]
    )


def random_params(model, seed=1):
    """Parameters of the size of trained ones, all different from their initial values."""
    params = model.init(jax.random.key(0), jnp.ones((1, 3), jnp.int32), jnp.ones((1, 3), bool))["params"]
    keys = jax.random.split(jax.random.key(seed), len(params))
    values = {n: params[n] + 0.3 * jax.random.normal(key, params[n].shape) for n, key in zip(params, keys, strict=True)}
    return {"params": {n: v.at[0].set(0.0) if n.startswith(("input", "output_e")) else v for n, v in values.items()}}


def random_sessions(num=6, seed=0):
    rng = np.random.default_rng(seed)
    length = np.array([1, LONGEST, *rng.integers(1, LONGEST + 1, num - 2)])
    mask = np.arange(LENGTH) < length[:, None]
    return np.where(mask, rng.integers(1, NUM_ITEMS + 1, mask.shape), 0).astype(np.int32), mask


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(model, method, params, key, *inputs):
    options = {} if key is None else {"train": True, "rngs": {"dropout": key}}
    return model.apply(params, *inputs, method=method, **options)


def inputs(model, items, mask):
    """What a backbone reads: items, mask and, where it reads them, times."""
    return (items, mask, *times_for(model, causal_reference.seconds_of(mask)))


def encode(model, params, items, mask):
    return apply(model, "__call__", params, None, *inputs(model, items, mask))


def encode_positions(model, params, items, mask, key=None):
    return apply(model, "encode_positions", params, key, *inputs(model, items, mask))


def test_vectors_are_those_of_the_papers_equations_in_float64(model):
    params, (items, mask) = random_params(model), random_sessions()
    expected = causal_reference.encode_positions(model, params["params"], items, mask)
    found = encode_positions(model, params, items, mask)
    np.testing.assert_allclose(found[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_the_session_vector_is_that_of_the_last_item_and_zero_without_items(model):
    params, (items, mask) = random_params(model), random_sessions()
    vectors = encode_positions(model, params, items, mask)
    last = encode(model, params, items, mask)
    np.testing.assert_allclose(last, vectors[np.arange(len(items)), mask.sum(1) - 1], rtol=1e-6)
    empty = encode(model, params, np.zeros_like(items), np.zeros_like(mask))
    np.testing.assert_array_equal(empty, 0.0)
    assert isinstance(model, CausalEncoder)


def test_padding_on_either_side_changes_nothing(model):
    params, (items, mask) = random_params(model), random_sessions()
    expected = encode(model, params, items, mask)
    for shift in (2, LENGTH - mask.sum(1)):
        rows = [np.stack([np.roll(row, n) for row, n in zip(array, np.broadcast_to(shift, len(array)), strict=True)])
                for array in (items, mask)]  # fmt: skip
        np.testing.assert_allclose(encode(model, params, *rows), expected, rtol=1e-5, atol=1e-5)
    assert rows[1][:, -1].all()


def test_a_later_item_changes_no_earlier_vector(model):
    params, (items, mask) = random_params(model), random_sessions()
    before = np.asarray(encode_positions(model, params, items, mask))
    for position in range(1, LONGEST):
        changed = items.copy()
        changed[:, position:] = np.where(mask, items % NUM_ITEMS + 1, 0)[:, position:]
        after = np.asarray(encode_positions(model, params, changed, mask))
        np.testing.assert_array_equal(after[:, :position], before[:, :position])
        assert (after[mask[:, position], position] != before[mask[:, position], position]).any(1).all()


def test_gradients_are_finite_zero_for_padding_and_those_of_finite_differences(model):
    params, (items, mask) = random_params(model), random_sessions()
    weight = jax.random.normal(jax.random.key(5), (*mask.shape, DIM)) * mask[..., None]

    def total(params):
        scored = model.apply(params, method="item_embeddings")[jnp.asarray(items)]
        arrays = map(jnp.asarray, inputs(model, items, mask))
        vectors = model.apply(params, *arrays, method="encode_positions")
        return (weight * vectors * (1 + scored)).sum()

    gradient = jax.jit(jax.grad(total))(params)["params"]
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())
    np.testing.assert_array_equal(gradient["input_embedding"][0], 0.0)
    direction = {name: 1e-5 * jax.random.normal(jax.random.key(7), leaf.shape) for name, leaf in gradient.items()}
    ends = [
        causal_reference.weighted_total(
            model, {n: np.float64(v) + sign * np.float64(direction[n]) for n, v in params["params"].items()},
            items, mask, np.float64(weight),
        )
        for sign in (1, -1)
    ]  # fmt: skip
    slope = sum(float((np.float64(gradient[n]) * np.float64(direction[n])).sum()) for n in gradient)
    size = sum(float(np.abs(np.float64(gradient[n]) * np.float64(direction[n])).sum()) for n in gradient)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2, atol=1e-3 * size)


def test_dropout_acts_in_training_only_and_depends_on_its_key(model):
    params, (items, mask) = random_params(model), random_sessions()
    drop = [encode_positions(model, params, items, mask, jax.random.key(n)) for n in (0, 1)]
    plain = encode_positions(model, params, items, mask)
    assert (drop[0] != drop[1])[mask].any()
    assert (drop[0] != plain)[mask].any()
    off = model.clone(dropout=0.0)
    np.testing.assert_array_equal(encode_positions(off, params, items, mask, jax.random.key(0)), plain)


@pytest.mark.parametrize("name", ["esasrec", "hstu"])
def test_item_dropout_acts_on_the_items_read_and_on_the_table_in_training_only(name):
    model = models.create(name, num_items=NUM_ITEMS, dim=DIM, max_length=LENGTH, dropout=0.0, item_dropout=0.4)
    params, (items, mask) = random_params(model), random_sessions()
    plain = encode_positions(model, params, items, mask)
    np.testing.assert_array_equal(encode_positions(model.clone(item_dropout=0.0), params, items, mask), plain)
    drop = [encode_positions(model, params, items, mask, jax.random.key(n)) for n in (0, 1)]
    assert (drop[0] != plain)[mask].any()
    assert (drop[0] != drop[1])[mask].any()
    loss = objectives.PositionSoftmax(model)
    table = np.asarray(loss.item_embeddings(params, jax.random.key(2)))[1:]
    assert 0.2 < (table == 0).mean() < 0.6
    np.testing.assert_array_equal(loss.item_embeddings(params), apply(model, "item_embeddings", params, None))
    assert (np.asarray(loss.item_embeddings(params))[1:] != 0).all()


def test_the_padding_row_of_new_tables_is_zero(model):
    params = models.init_params(jax.random.key(0), model)
    table = model.apply(params, method="item_embeddings")
    assert table.shape == (NUM_ITEMS + 1, DIM)
    np.testing.assert_array_equal(params["params"]["input_embedding"][0], 0.0)
    np.testing.assert_array_equal(table[0], 0.0)
    assert ("output_embedding" in params["params"]) == model.separate


def test_a_block_without_weights_by_hand():
    model = models.create("esasrec", num_items=3, dim=2, scaled=False)
    params = jax.tree.map(jnp.zeros_like, models.init_params(jax.random.key(0), model))
    params["params"]["input_embedding"] = jnp.array([[0.0, 0], [3, 1], [0, 2], [1, 1]])
    params["params"]["output_norm_scale"] = jnp.array([2.0, 2])
    # Both layers add 0, and the normalization of (a, b) is (1, -1) where a > b, and (-1, 1) where a < b.
    vectors = encode_positions(model, params, np.array([[1, 2, 0]]), np.array([[True, True, False]]))
    np.testing.assert_allclose(vectors[0, :2], [[2, -2], [-2, 2]], atol=1e-6)


def test_hstu_weighs_items_by_hand():
    model = models.create("hstu", num_items=2, dim=1, blocks=1, scaled=False, max_length=4)
    params = jax.tree.map(jnp.zeros_like, models.init_params(jax.random.key(0), model))
    params["params"]["input_embedding"] = jnp.array([[0.0], [3.0], [-2.0]])
    # Of width 1 a normalized vector is 0, so that a block adds its bias.
    params["params"]["block_1_outer_bias"] = jnp.array([-2.5])
    vectors = encode_positions(model, params, np.array([[1, 2]]), np.array([[True, True]]))
    np.testing.assert_allclose(vectors[0, :, 0], [1 / 0.05, -1 / 0.05])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "dim is 8; expected a multiple of 3 heads"),
        ({"dropout": 1.0}, "dropout is 1.0; expected at least 0 and below 1"),
        ({"item_dropout": -0.1}, "item_dropout is -0.1; expected at least 0 and below 1"),
        ({"variant": "post"}, "variant is 'post'; expected"),
        ({"max_length": 2}, "sessions have 3 positions; expected at most max_length 2"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    model = models.create("sasrec", num_items=3, dim=8, **options)
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), jnp.ones((1, 3), jnp.int32), jnp.ones((1, 3), bool))


def test_hstu_with_times_refuses_sessions_without():
    model = models.create("hstu", num_items=3, dim=8, time=True)
    params = models.init_params(jax.random.key(0), model)
    items = jnp.ones((1, 3), jnp.int32)
    with pytest.raises(ValueError, match="time is True and seconds is None; expected the times of the items"):
        model.apply(params, items, items > 0)
    with pytest.raises(ValueError, match="HSTU reads times; expected sessions with times"):
        models.encode(model, params, items, items > 0)


def test_a_bucket_of_times_begins_where_its_logarithm_does():
    starts = np.asarray(hstu.BUCKET_STARTS, np.int64)
    elapsed = np.unique(np.concatenate([np.arange(1, 10_000), starts - 1, starts, starts + 1, [2**31 - 1]]))
    elapsed = elapsed[elapsed > 0].astype(np.int32)
    model = models.create("hstu", num_items=3, dim=8, time=True)
    found = model.time_buckets(jnp.stack([jnp.zeros_like(elapsed), jnp.asarray(elapsed)], axis=1))
    np.testing.assert_array_equal(found[:, 1, 0], np.floor(np.log(elapsed.astype(np.float64)) / 0.301))
    np.testing.assert_array_equal(found[:, 0], 0)
