"""Dynamic sparse learning: a constant budget that moves, and dense training at density 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax import models
from alkd_jax.distillation import dsl


def test_the_ratio_decays_by_half_a_cosine():
    ratios = [dsl.update_ratio(step, total=200) for step in (0, 100, 200, 300)]
    np.testing.assert_allclose(ratios, [0.5, 0.2525, 0.005, 0.005], rtol=1e-5)


def toy(seed=0, density=0.4, shape=(12, 5)):
    rng = np.random.default_rng(seed)
    eligible = np.ones(shape, bool)
    eligible[0] = False
    mask = eligible & (rng.random(shape) < density)
    weights = np.where(mask, rng.normal(size=shape), 0).astype(np.float32)
    growth = np.abs(rng.normal(size=shape)).astype(np.float32)
    return weights, mask, growth, eligible


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_the_smallest_weights_are_pruned_and_the_largest_gradients_regrow(ratio):
    weights, mask, growth, eligible = toy()
    new = np.asarray(dsl.prune_and_regrow(*map(jnp.asarray, (weights, mask, growth, eligible)), ratio))
    magnitude = np.abs(weights)
    leaving = int(np.ceil(np.float32(ratio) * mask.sum()))
    order = np.sort(magnitude[mask])
    remaining = mask & (magnitude > (order[leaving - 1] if leaving else -1))
    assert new.sum() == mask.sum()
    assert new[remaining].all()
    assert (mask & ~remaining).sum() == leaving
    grown, left_out = new & ~remaining, eligible & ~new
    assert grown.sum() == leaving
    assert not new[0].any()
    if leaving and left_out.any():
        assert growth[grown].min() >= growth[left_out].max()


def test_sparse_gradients_do_not_change_the_number_of_active_entries():
    weights, mask, growth, eligible = toy(density=0.5, shape=(60, 16))
    growth[2:] = 0
    new = dsl.prune_and_regrow(*map(jnp.asarray, (weights, mask, growth, eligible)), 0.5)
    assert int(new.sum()) == mask.sum()
    # Without a gradient to go by, what was pruned comes back before what was zero, the largest first.
    back = np.asarray(new) & (growth == 0)
    assert not (back & ~mask & eligible).any()


def test_ties_with_the_last_pruned_entry_are_pruned_too():
    weights = jnp.array([[0.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    eligible = jnp.ones((3, 2), bool).at[0].set(False)
    growth = jnp.array([[9.0, 9.0], [3.0, 1.0], [2.0, 0.0]])
    new = dsl.prune_and_regrow(weights, eligible, growth, eligible, 0.25)
    np.testing.assert_array_equal(new, eligible)


@pytest.fixture
def student(key):
    return models.init_params(key, models.create("stamp", num_items=50, dim=6))


def test_sparsify_keeps_the_density_of_matrices_and_all_of_vectors(student):
    sparse_params = dsl.sparsify(jax.random.key(1), student, 0.3)
    for name, leaf in sparse_params["params"].items():
        whole = student["params"][name]
        np.testing.assert_array_equal(leaf[leaf != 0], whole[leaf != 0])
        if leaf.size > 100:
            assert np.count_nonzero(leaf) / (leaf.size - 6) == pytest.approx(0.3, abs=0.1)
    np.testing.assert_array_equal(sparse_params["params"]["attention_bias"], student["params"]["attention_bias"])
    tables = [sparse_params["params"][f"{side}_embedding"] != 0 for side in ("input", "output")]
    assert (tables[0] != tables[1]).any()
    for left, right in zip(
        *map(jax.tree.leaves, (dsl.sparsify(jax.random.key(1), student, 1.0), student)), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("density", [0.0, 1.5])
def test_a_density_out_of_range_is_refused(student, density):
    with pytest.raises(ValueError, match=f"density is {density}"):
        dsl.sparsify(jax.random.key(0), student, density)


def small_student():
    """A table with its padding row, a matrix and a vector."""
    draws = jax.random.normal(jax.random.key(4), (13, 4)), jax.random.normal(jax.random.key(5), (5, 5))
    return {"params": {"input_embedding": draws[0].at[0].set(0.0), "kernel": draws[1], "bias": jnp.zeros(5)}}


def descend(params, optimizer, steps, *, compiled=True):
    """Takes steps downhill with gradients that are mostly 0; yields parameters, state and gradient after each."""

    def take(params, state, step):
        goal = jax.tree.map(lambda a: jnp.sin(1.7 * step + jnp.arange(a.size)).reshape(a.shape), params)
        gradient = jax.tree.map(lambda a, g: jnp.where(g > 0.8, a - g, 0.0), params, goal)
        table = gradient["params"]["input_embedding"].at[0].set(0.0)
        gradient = {"params": gradient["params"] | {"input_embedding": table}}
        change, state = optimizer.update(gradient, state, params, step=step)
        return optax.apply_updates(params, change), state, gradient

    state, take = optimizer.init(params), jax.jit(take) if compiled else take
    for step in range(steps):
        params, state, gradient = take(params, state, step)
        yield params, state, gradient


@pytest.mark.parametrize("accumulate", [False, True])
def test_inactive_entries_stay_zero_and_the_count_never_changes(accumulate):
    sparse_params = dsl.sparsify(jax.random.key(1), small_student(), 0.4)
    optimizer = dsl.dynamic_sparse(optax.adam(0.05), total=20, every=3, accumulate=accumulate)
    before = optimizer.init(sparse_params).masks
    budget = jax.tree.map(lambda m: int(m.sum()), before)
    changes = 0
    for step, (params, state, _) in enumerate(descend(sparse_params, optimizer, 9)):
        for leaf, mask in zip(*map(jax.tree.leaves, (params, state.masks)), strict=True):
            np.testing.assert_array_equal(leaf, jnp.where(mask, leaf, 0.0))
        assert jax.tree.map(lambda m: int(m.sum()), state.masks) == budget
        moved = any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (before, state.masks)), strict=True))
        assert moved <= (step % 3 == 2)
        changes += moved
        if moved:
            for leaf, old, new in zip(*map(jax.tree.leaves, (params, before, state.masks)), strict=True):
                np.testing.assert_array_equal(leaf[new & ~old], 0.0)
        before = state.masks
    assert changes == 3


def test_active_entries_take_the_inner_optimizers_steps():
    sparse_params = dsl.sparsify(jax.random.key(1), small_student(), 0.4)
    optimizer, inner = dsl.dynamic_sparse(optax.adam(0.05), total=20, every=100), optax.adam(0.05)
    mask, state, expected = optimizer.init(sparse_params).masks, inner.init(sparse_params), sparse_params
    for params, _, gradient in descend(sparse_params, optimizer, 4):
        change, state = inner.update(gradient, state, expected)
        expected = jax.tree.map(lambda a, m: jnp.where(m, a, 0.0), optax.apply_updates(expected, change), mask)
        for leaf, expected_leaf in zip(*map(jax.tree.leaves, (params, expected)), strict=True):
            np.testing.assert_allclose(leaf, expected_leaf, atol=1e-7)


def test_full_density_is_the_inner_optimizer_bit_for_bit():
    sparse = dsl.dynamic_sparse(optax.adam(0.05), total=20, every=2)
    plain = optax.with_extra_args_support(optax.adam(0.05))
    # Operation by operation: a compiler may round a fused product and sum once, and not fuse the same in both.
    runs = (descend(small_student(), optimizer, 4, compiled=False) for optimizer in (sparse, plain))
    for (one, state, _), (two, _, _) in zip(*runs, strict=True):
        for left, right in zip(*map(jax.tree.leaves, (one, two)), strict=True):
            np.testing.assert_array_equal(left, right)
        assert state.masks["params"]["kernel"].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"initial_ratio": 2.0}, "initial_ratio is 2.0"),
        ({"density": 0.0}, "density is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dsl.Options(**options)
