"""Row-sparse optimizers against dense optax and plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alkd_jax.ops import embedding, row_gradients

PAIRS = {
    "sgd": (embedding.sgd(0.1), optax.sgd(0.1)),
    "adagrad": (embedding.adagrad(0.1), optax.adagrad(0.1)),
    "adagrad of a schedule": (
        embedding.adagrad(optax.linear_schedule(0.1, 0.01, 5)),
        optax.adagrad(optax.linear_schedule(0.1, 0.01, 5)),
    ),
    "adam": (embedding.adam(0.1), optax.adam(0.1)),
}
OPTIMIZERS = {name: rows for name, (rows, _) in PAIRS.items()} | {
    "row-wise adagrad": embedding.adagrad(0.1, rowwise=True),
    "adagrad with momentum": embedding.adagrad(0.1, momentum=0.4),
}


def dense_gradient(ids, gradients, shape):
    """The gradient of the whole table: the named rows, added up; what names none is left out."""
    whole = np.zeros(shape, np.float32)
    for row, gradient in zip(ids, gradients, strict=True):
        if 0 < row < shape[0]:
            whole[row] += gradient
    return whole


def drawn(seed, steps, *, rows=30, width=4, named=24):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((rows, width)).astype(np.float32)
    ids = rng.integers(0, rows // 2, (steps, named))  # half the rows are never named, others often
    return table, ids, rng.standard_normal((steps, named, width)).astype(np.float32)


@pytest.mark.parametrize("name", ["sgd", "adagrad", "adagrad of a schedule"])
def test_sgd_and_adagrad_equal_dense_optax_whatever_is_named(name):
    rows, dense = PAIRS[name]
    table, ids, gradients = drawn(0, 6)
    ours, slots = jnp.asarray(table), rows.init(jnp.asarray(table))
    theirs, state = jnp.asarray(table), dense.init(jnp.asarray(table))
    update = jax.jit(rows.update)
    for row, gradient in zip(ids, gradients, strict=True):
        ours, slots = update(ours, slots, jnp.asarray(row), jnp.asarray(gradient))
        step, state = dense.update(jnp.asarray(dense_gradient(row, gradient, table.shape)), state, theirs)
        theirs = optax.apply_updates(theirs, step)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    np.testing.assert_array_equal(ours[15:], table[15:])
    np.testing.assert_array_equal(ours[0], table[0])


def test_adam_equals_dense_optax_on_rows_touched_at_every_step_and_leaves_others_alone():
    rows, dense = PAIRS["adam"]
    table, _, gradients = drawn(1, 5)
    named = np.concatenate([np.arange(1, 13), np.arange(1, 13)])
    ours, slots = jnp.asarray(table), rows.init(jnp.asarray(table))
    theirs, state = jnp.asarray(table), dense.init(jnp.asarray(table))
    for gradient in gradients:
        ours, slots = rows.update(ours, slots, jnp.asarray(named), jnp.asarray(gradient))
        step, state = dense.update(jnp.asarray(dense_gradient(named, gradient, table.shape)), state, theirs)
        theirs = optax.apply_updates(theirs, step)
    np.testing.assert_allclose(ours[1:13], theirs[1:13], atol=1e-5)
    np.testing.assert_array_equal(ours[13:], table[13:])


def test_lazy_adam_does_not_move_a_row_that_dense_adam_moves_on():
    rows, _ = PAIRS["adam"]
    table = jnp.ones((4, 2))
    slots = rows.init(table)
    first, slots = rows.update(table, slots, jnp.asarray([2]), jnp.ones((1, 2)))
    second, slots = rows.update(first, slots, jnp.asarray([3]), jnp.ones((1, 2)))
    assert (first[2] < 1).all()
    np.testing.assert_array_equal(second[2], first[2])
    assert slots.steps == 2
    # m = 0.1 and n = 0.001 after one gradient of 1, corrected by two steps.
    expected = 1 - 0.1 * (0.1 / (1 - 0.9**2)) / ((0.001 / (1 - 0.999**2)) ** 0.5 + 1e-8)
    np.testing.assert_allclose(second[3], expected, rtol=1e-5)


def test_rowwise_adagrad_keeps_the_mean_square_of_a_row():
    rows = OPTIMIZERS["row-wise adagrad"]
    table, gradient = np.zeros((5, 3), np.float32), np.asarray([[1.0, 2.0, 3.0]], np.float32)
    moved, slots = rows.update(
        jnp.asarray(table), rows.init(jnp.asarray(table)), jnp.asarray([4]), jnp.asarray(gradient)
    )
    square = 0.1 + (1 + 4 + 9) / 3
    np.testing.assert_allclose(slots.squares, [0.1, 0.1, 0.1, 0.1, square], rtol=1e-6)
    np.testing.assert_allclose(moved[4], -0.1 * gradient[0] / np.sqrt(square + 1e-7), rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("distinct", [False, True])
def test_padding_negative_and_over_range_ids_touch_no_row(name, distinct):
    rows = OPTIMIZERS[name]
    table = jnp.arange(12.0).reshape(6, 2)
    slots = rows.init(table)
    ids = jnp.asarray([0, -1, -6, 6, 7, 2**30])
    moved, after = rows.update(table, slots, ids, jnp.ones((6, 2)), unique_ids=distinct)
    np.testing.assert_array_equal(moved, table)
    for old, new in zip(slots[1:], after[1:], strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_distinct_rows_need_no_sorting(name):
    rows = OPTIMIZERS[name]
    table, _, gradients = drawn(2, 1)
    ids = jnp.asarray(np.random.default_rng(0).permutation(np.arange(1, 30))[:24])
    slots = rows.init(jnp.asarray(table))
    either = [
        rows.update(jnp.asarray(table), slots, ids, jnp.asarray(gradients[0]), unique_ids=told)[0]
        for told in (False, True)
    ]
    np.testing.assert_array_equal(*either)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_table_of_single_numbers_is_a_table(name):
    rows = OPTIMIZERS[name]
    biases = jnp.zeros(5)
    moved, _ = rows.update(biases, rows.init(biases), jnp.asarray([1, 3, 3]), jnp.asarray([1.0, 1.0, -3.0]))
    assert (jnp.sign(moved) == jnp.asarray([0, -1, 0, 1, 0])).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_donated_updates_are_made_in_place_and_need_no_memory_of_the_tables_size(name, dtype):
    rows = OPTIMIZERS[name]

    def memory(num_rows):
        table = jax.ShapeDtypeStruct((num_rows, 16), dtype)
        slots = jax.eval_shape(rows.init, table)
        arguments = (jax.ShapeDtypeStruct((64,), jnp.int32), jax.ShapeDtypeStruct((64, 16), jnp.float32))
        compiled = jax.jit(rows.update, donate_argnums=(0, 1)).lower(table, slots, *arguments).compile()
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((table, slots)))
        return compiled.memory_analysis(), held

    (small, _), (large, held) = memory(10_000), memory(80_000)
    assert large.alias_size_in_bytes >= held
    if dtype == jnp.float32 or jax.__version_info__ >= (0, 11):
        # jax 0.10 scatters into bfloat16 on a CPU by way of a float32 copy.
        assert large.temp_size_in_bytes < small.temp_size_in_bytes + 4096


def test_a_bfloat16_table_is_updated_in_float32_and_rounded_once():
    rows = embedding.adam(0.1, dtype=jnp.bfloat16)
    table = jnp.ones((4, 2), jnp.bfloat16)
    slots = rows.init(table)
    assert {leaf.dtype for leaf in slots[1:]} == {jnp.dtype(jnp.bfloat16)}
    moved, after = rows.update(table, slots, jnp.asarray([2, 2]), jnp.full((2, 2), 0.5))
    assert moved.dtype == after.first.dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved[2].astype(jnp.float32), jnp.asarray(0.9, jnp.bfloat16).astype(jnp.float32))


def test_small_steps_survive_in_a_bfloat16_table_when_rounded_at_random(key):
    rows = embedding.sgd(2.0**-12)
    update = jax.jit(functools.partial(rows.update, unique_ids=True))
    table = jnp.ones((2, 512), jnp.bfloat16)
    ids, gradients = jnp.asarray([1]), -jnp.ones((1, 512))
    at_random = nearest = table
    slots = rows.init(table)
    for step in range(64):
        nearest, _ = update(nearest, slots, ids, gradients)
        at_random, _ = update(at_random, slots, ids, gradients, key=jax.random.fold_in(key, step))
    assert (nearest == 1).all()
    assert float(at_random[1].astype(jnp.float32).mean()) == pytest.approx(1 + 64 * 2.0**-12, abs=2e-3)


def test_gradients_of_another_shape_are_refused():
    rows, table = OPTIMIZERS["sgd"], jnp.ones((4, 2))
    with pytest.raises(ValueError, match=r"gradients have shape \(3, 2\) for ids of shape \(2,\); expected \(2, 2\)"):
        rows.update(table, rows.init(table), jnp.asarray([1, 2]), jnp.ones((3, 2)))


@pytest.mark.parametrize("rows_an_id", [0, 100])
def test_every_row_is_found_once_with_all_its_gradients_by_sorting_and_without(rows_an_id, monkeypatch):
    monkeypatch.setattr(row_gradients, "_MAX_ROWS_PER_ID", rows_an_id)
    ids = np.asarray([4, -1, 4, 2, 0, 9, 6, 2, -7, 4])
    gradients = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    found = row_gradients.RowGradients(jnp.zeros((7, 3)), jnp.asarray(ids), jnp.asarray(gradients))
    place = np.asarray(found.ids)
    assert sorted(place[place < 7].tolist()) == [2, 4, 6]
    assert len(set(place.tolist())) == 10
    expected = np.zeros((7, 3), np.float32)
    np.add.at(expected, ids[[0, 2, 3, 6, 7, 9]], gradients[[0, 2, 3, 6, 7, 9]])
    np.testing.assert_allclose(jnp.zeros((7, 3)).at[found.ids].set(found.gradient, mode="drop"), expected, rtol=1e-6)
