"""Backbones against golden values of the reference implementation, and their invariants."""

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


@pytest.mark.parametrize("dim", [4, 10])
def test_fpmc_agrees_with_the_reference(golden, dim):
    items, mask, target, expected, arrays = reference_arrays(golden, "fpmc", dim)
    params = models.params_from_reference("fpmc", arrays)
    model = models.create("fpmc", num_items=len(arrays["output_embedding"]) - 1, dim=dim)
    vectors = model.apply(params, items, mask)
    np.testing.assert_allclose(vectors, expected["session_vector"], atol=1e-5)

    scores = vectors @ model.apply(params, method="item_embeddings")[target].T
    loss = losses.in_batch_bpr(scores, target, released=True)
    np.testing.assert_allclose(loss, expected["in_batch_bpr_loss"], atol=1e-5)


@pytest.fixture
def fpmc():
    model = models.create("fpmc", num_items=30, dim=6)
    return model, models.init_params(jax.random.key(1), model)


def test_number_of_parameters(fpmc):
    _, params = fpmc
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2 * (30 + 1) * 6


def test_initial_tables_are_xavier_normal_with_a_zero_padding_row():
    model = models.create("fpmc", num_items=4000, dim=50)
    for table in models.init_params(jax.random.key(0), model)["params"].values():
        assert not table[0].any()
        np.testing.assert_allclose(np.std(table[1:]), (2 / 4050) ** 0.5, rtol=0.01)


def test_padding_neither_counts_nor_learns(fpmc):
    model, params = fpmc
    short = jnp.asarray([[3, 4, 0, 0]]), jnp.asarray([[True, True, False, False]])
    poisoned = jax.tree.map(lambda table: table.at[0].set(7.0), params)
    np.testing.assert_array_equal(model.apply(params, *short), model.apply(poisoned, *short))
    gradient = jax.grad(lambda p: model.apply(p, *short).sum())(params)
    assert not gradient["params"]["input_embedding"][0].any()
    assert gradient["params"]["input_embedding"][3].any()


def test_an_empty_session_encodes_to_zero_and_not_to_nan(fpmc):
    model, params = fpmc
    items = jnp.zeros((1, 4), jnp.int32)
    np.testing.assert_array_equal(model.apply(params, items, items > 0), np.zeros((1, 6)))


def test_a_row_does_not_depend_on_its_batch_mates_or_on_more_padding(fpmc):
    model, params = fpmc
    items = jnp.asarray([[3, 4, 0], [5, 6, 7]])
    both = model.apply(params, items, items > 0)
    wider = jnp.pad(items[:1], ((0, 0), (0, 5)))
    np.testing.assert_allclose(model.apply(params, wider, wider > 0), both[:1], rtol=1e-6)


def test_bad_names_sizes_and_arrays_are_refused(fpmc):
    with pytest.raises(ValueError, match="'gru4rec'; expected one of fpmc"):
        models.create("gru4rec", num_items=3, dim=2)
    with pytest.raises(ValueError, match="dim is 0"):
        models.create("fpmc", num_items=3, dim=0)
    table = np.zeros((4, 2))
    with pytest.raises(ValueError, match="expects arrays"):
        models.params_from_reference("fpmc", {"output_embedding": table})
    with pytest.raises(ValueError, match=r"input_embedding of shape \(4, 2\); got \(5, 2\)"):
        models.params_from_reference("fpmc", {"output_embedding": table, "input_embedding": np.zeros((5, 2))})
