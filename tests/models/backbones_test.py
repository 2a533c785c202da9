"""Backbones against golden values of the reference implementation, and their invariants."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses, models


def reference_arrays(path, backbone, dim):
    archive = np.load(path / "backbones.npz")
    prefix = f"{backbone}/d{dim}/"
    arrays = {name.removeprefix(prefix): archive[name] for name in archive.files if name.startswith(prefix)}
    params = {name.removeprefix("params/"): a for name, a in arrays.items() if name.startswith("params/")}
    return *(jnp.asarray(archive[name]) for name in ("items", "mask", "target")), arrays, params


BACKBONES = ("fpmc", "stamp", "attmix")


@pytest.mark.parametrize("dim", [4, 10])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_agrees_with_the_reference(golden, backbone, dim):
    items, mask, target, expected, arrays = reference_arrays(golden, backbone, dim)
    params = models.params_from_reference(backbone, arrays)
    model = models.create(backbone, num_items=59, dim=dim)
    vectors = jax.jit(model.apply)(params, items, mask)
    np.testing.assert_allclose(vectors, expected["session_vector"], atol=1e-5)

    scores = vectors @ model.apply(params, method="item_embeddings")[target].T
    loss = losses.in_batch_bpr(scores, target, released=True)
    np.testing.assert_allclose(loss, expected["in_batch_bpr_loss"], atol=1e-5)


def made(backbone, num_items=30, dim=6, **options):
    model = models.create(backbone, num_items=num_items, dim=dim, **options)
    return model, models.init_params(jax.random.key(1), model)


VARIANTS = [("fpmc", {}), ("stamp", {}), ("stamp", {"variant": "original"}), ("attmix", {})]


@pytest.fixture(params=VARIANTS, ids=["fpmc", "stamp", "stamp-original", "attmix"])
def backbone(request):
    name, options = request.param
    return made(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fpmc", {}, 2 * 31 * 6),
        ("stamp", {}, 2 * 31 * 6 + 3 * 6 * 6 + 2 * 6),
        ("stamp", {"variant": "original"}, 31 * 6 + 5 * 6 * 6 + 4 * 6),
        # levels 1..10, query, key, value, merge (two wide); a bias each, and the layer norm's scale and bias
        ("attmix", {}, 2 * 31 * 6 + (55 + 1 + 1 + 1 + 2) * 6 * 6 + (10 + 4 + 2) * 6),
    ],
)
def test_number_of_parameters(name, options, expected):
    _, params = made(name, **options)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_attmix_draws_each_parameter_as_a_draw_of_its_own_would():
    model, params = made("attmix", levels=3)

    class Alone(nn.Module):
        @nn.compact
        def __call__(self):
            bound = model.dim**-0.5
            shapes = {"input_embedding": (31, 6), "output_embedding": (31, 6)} | model.layer_shapes()
            for name, shape in shapes.items():
                self.param(name, lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound), shape)

    expected = Alone().init(jax.random.key(1))["params"]
    assert params["params"].keys() == expected.keys()
    for name, drawn in params["params"].items():
        first = int(name.endswith("embedding"))
        np.testing.assert_array_equal(drawn[first:], expected[name][first:], err_msg=name)


def test_initial_tables_are_xavier_normal_with_a_zero_padding_row():
    model = models.create("fpmc", num_items=4000, dim=50)
    for table in models.init_params(jax.random.key(0), model)["params"].values():
        assert not table[0].any()
        np.testing.assert_allclose(np.std(table[1:]), (2 / 4050) ** 0.5, rtol=0.01)


def test_the_original_stamp_follows_its_equations():
    model, params = made("stamp", variant="original")
    items = jnp.asarray([[3, 4, 9, 0]])
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params["params"].items()}
    x = p["input_embedding"][[3, 4, 9]]
    mean, last = x.mean(0), x[2]
    steering = last @ p["attention_last_kernel"] + mean @ p["attention_mean_kernel"] + p["attention_bias"]
    energy = 1 / (1 + np.exp(-(x @ p["attention_item_kernel"] + steering))) @ p["attention_out_kernel"]
    u = (energy * x).sum(0) + mean
    expected = np.tanh(u @ p["session_kernel"] + p["session_bias"]) * np.tanh(last @ p["last_kernel"] + p["last_bias"])
    np.testing.assert_allclose(model.apply(params, items, items > 0)[0], expected, rtol=1e-4)
    assert model.apply(params, method="item_embeddings") is params["params"]["input_embedding"]


@pytest.mark.parametrize("variant", ["alkdrec", "original"])
def test_stamp_of_masked_rows_has_the_values_and_gradients_of_stamp(variant):
    model, params = made("stamp", variant=variant)
    params = jax.tree.map(lambda leaf: 100 * leaf + 0.1, params)
    mask = jnp.arange(5)[None] < jnp.array([5, 1, 3, 0])[:, None]
    rows = jnp.where(mask[..., None], jax.random.normal(jax.random.key(2), (4, 5, 6)), 0.0)

    def graded(method):
        def loss(params, rows):
            return (model.apply(params, rows, mask, method=method) ** 3).sum()

        return jax.value_and_grad(loss, argnums=(0, 1))(params, rows)

    (one, of_one), (other, of_other) = graded("encode_rows"), graded("encode_masked_rows")
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert abs(one) > 1e-3
    # The gradient where there is no item belongs to no parameter.
    of_one, of_other = ((grads, jnp.where(mask[..., None], of_rows, 0)) for grads, of_rows in (of_one, of_other))
    for a, b in zip(jax.tree.leaves(of_one), jax.tree.leaves(of_other), strict=True):
        # Large terms cancel in some entries, whose error is that of the terms.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * float(jnp.abs(b).max()) + 1e-5)


def test_dropout_is_on_only_in_training_and_follows_its_key():
    model, params = made("attmix")
    items = jnp.asarray([[3, 4, 9, 0]])

    def encode(seed):
        return model.apply(params, items, items > 0, train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(encode(0), encode(0))
    assert (encode(0) != encode(1)).any()
    np.testing.assert_array_equal(model.apply(params, items, items > 0), model.apply(params, items, items > 0))


def test_padding_neither_counts_nor_learns(backbone):
    model, params = backbone
    short = jnp.asarray([[3, 4, 0, 0]]), jnp.asarray([[True, True, False, False]])
    tables = {name: leaf.at[0].set(7.0) for name, leaf in params["params"].items() if name.endswith("_embedding")}
    poisoned = {"params": params["params"] | tables}
    np.testing.assert_array_equal(model.apply(params, *short), model.apply(poisoned, *short))
    gradient = jax.grad(lambda p: model.apply(p, *short).sum())(params)
    assert not gradient["params"]["input_embedding"][0].any()
    assert gradient["params"]["input_embedding"][3].any()


def test_an_empty_session_is_encoded_without_nan(backbone):
    model, params = backbone
    items = jnp.zeros((1, 4), jnp.int32)
    gradient = jax.grad(lambda p: model.apply(p, items, items > 0).sum())(params)
    for leaf in [model.apply(params, items, items > 0), *jax.tree.leaves(gradient)]:
        assert np.isfinite(leaf).all()


def test_a_row_does_not_depend_on_its_batch_mates_or_but_for_attmix_on_more_padding(backbone):
    model, params = backbone
    items = jnp.asarray([[3, 4, 0], [5, 6, 7]])
    both = model.apply(params, items, items > 0)
    # AttMix's first softmax runs over free positions too.
    wider = jnp.pad(items[:1], ((0, 0), (0, 0 if isinstance(model, models.AttMix) else 5)))
    np.testing.assert_allclose(model.apply(params, wider, wider > 0), both[:1], rtol=1e-5, atol=1e-7)


def test_bad_names_sizes_and_arrays_are_refused():
    with pytest.raises(ValueError, match="'gru5rec'; expected 'fpmc'"):
        models.create("gru5rec", num_items=3, dim=2)
    with pytest.raises(ValueError, match="dim is 0"):
        models.create("fpmc", num_items=3, dim=0)
    table = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"arrays are .*; expected"):
        models.params_from_reference("fpmc", {"output_embedding": table})
    with pytest.raises(ValueError, match=r"shape of input_embedding is \(5, 2\); expected \(4, 2\)"):
        models.params_from_reference("fpmc", {"output_embedding": table, "input_embedding": np.zeros((5, 2))})
