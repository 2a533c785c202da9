"""Packed tables hold the rows of plain ones, and are read and updated as these are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, scoring
from alkd_jax.ops import embedding, packed_rows

WIDTHS = [1, 10, 64, 100, 200]
OPTIMIZERS = {
    "sgd": embedding.sgd(0.1),
    "adagrad": embedding.adagrad(0.1),
    "row-wise adagrad": embedding.adagrad(0.1, rowwise=True, initial_accumulator_value=0.0),
    "adam": embedding.adam(0.1),
}


def table_of(num_rows, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)


def assert_equal(packed, plain, **tolerance):
    """Compares the leaves of two trees, whose tables may be packed."""
    pairs = zip(jax.tree.leaves(packed_rows.unpack_all(packed)), jax.tree.leaves(plain), strict=True)
    for one, other in pairs:
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), **tolerance)


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("num_rows", [1, 25, 26])
def test_a_packed_table_holds_every_row(num_rows, dim):
    table = jnp.asarray(table_of(num_rows, dim))
    on_host, packed = packed_rows.pack(np.asarray(table)), packed_rows.pack(table)
    assert isinstance(on_host.rows, np.ndarray)
    np.testing.assert_array_equal(on_host.rows, packed.rows)
    assert packed.rows.shape == packed_rows.stored_shape(num_rows, dim)
    assert packed.rows.shape[1] % 128 == 0
    assert packed.shape == table.shape
    np.testing.assert_array_equal(packed_rows.unpack(packed), table)
    ids = jnp.asarray([[0, num_rows - 1], [num_rows // 2, num_rows + 7]])
    np.testing.assert_array_equal(packed[ids], table[np.minimum(ids, num_rows - 1)])
    np.testing.assert_array_equal(packed_rows.take_rows(packed, ids[0]), packed_rows.take_rows(table, ids[0]))


def test_a_view_of_a_host_table_needs_no_memory():
    rows = packed_rows.pack(table_of(25, 64)).rows
    assert np.shares_memory(packed_rows.unpack(packed_rows.PackedTable(rows, 25, 64)), rows)


@pytest.mark.parametrize("dim", [10, 64, 200])
def test_a_slice_may_begin_and_end_anywhere(dim):
    table = table_of(25, dim)
    packed = packed_rows.pack(jnp.asarray(table))
    for num in (1, 5, 24, 25):
        slice_rows = jax.jit(lambda table, start, num=num: packed_rows.slice_rows(table, start, num))
        for start in {0, 1, (25 - num) // 2, 25 - num} & set(range(26 - num)):
            np.testing.assert_array_equal(slice_rows(packed, start), table[start : start + num])


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("fpmc", 10),
        pytest.param("stamp", 64, marks=pytest.mark.slow),
        pytest.param("attmix", 128, marks=pytest.mark.slow),
    ],
)
def test_initial_values_are_the_same_whether_they_are_drawn_packed_or_not(name, dim):
    model = models.create(name, num_items=24, dim=dim)
    plain = models.init_params(jax.random.key(3), model)
    with packed_rows.drawing_packed():
        packed = jax.jit(lambda key: models.init_params(key, model))(jax.random.key(3))
    is_packed = isinstance(packed["params"]["input_embedding"], packed_rows.PackedTable)
    assert is_packed == (dim != 128)
    assert_equal(packed, plain, atol=1e-7)
    assert not np.asarray(packed_rows.unpack(packed["params"]["output_embedding"]))[0].any()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("dim", "dtype"),
    [
        (10, jnp.float32),
        (64, jnp.bfloat16),
        *(pytest.param(*size, marks=pytest.mark.slow) for size in ((64, jnp.float32), (100, jnp.float32))),
    ],
)
def test_updates_equal_those_of_a_plain_table(name, dim, dtype):
    """Rows of both halves, repeated ids, the padding, and ids that are no items, in a table with an odd number."""
    optimizer, num_rows = OPTIMIZERS[name], 25
    rng = np.random.default_rng(1)
    plain = jnp.asarray(table_of(num_rows, dim), dtype)
    packed = packed_rows.pack(plain)
    states = [(table, optimizer.init(table)) for table in (plain, packed)]
    update = jax.jit(optimizer.update)
    for _ in range(3):
        ids = np.concatenate([rng.integers(1, num_rows, 12), [2, 3, 3, 24, 24, 0, -1, -24, 25, 26, 2**30]])
        ids, gradients = jnp.asarray(ids), jnp.asarray(rng.standard_normal((len(ids), dim)), jnp.float32)
        states = [update(*state, ids, gradients) for state in states]
    assert_equal(states[1], states[0], rtol=1e-6, atol=1e-6 if dtype == jnp.float32 else 1e-2)
    np.testing.assert_array_equal(packed_rows.unpack(states[1][0])[0], plain[0])


@pytest.mark.parametrize("dim", [10, 64])
@pytest.mark.parametrize("name", ["row-wise adagrad", pytest.param("adam", marks=pytest.mark.slow)])
def test_promises_and_a_mask_do_not_change_an_update(name, dim):
    optimizer = OPTIMIZERS[name]
    plain = jnp.asarray(table_of(25, dim))
    packed = packed_rows.pack(plain)
    ids = jnp.asarray([0, 1, 2, 3, 6, 7, 8, 12, 13, 23, 24, 25, 26, 27])
    where = jnp.asarray([1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1], bool)
    gradients = jnp.asarray(table_of(len(ids), dim, seed=2))
    expected = optimizer.update(plain, optimizer.init(plain), jnp.where(where, ids, -1), gradients)
    order = np.random.default_rng(0).permutation(len(ids))
    for table in (plain, packed):
        ordered = optimizer.update(
            table, optimizer.init(table), ids, gradients, where=where, unique_ids=True, sorted_ids=True
        )
        shuffled = optimizer.update(
            table, optimizer.init(table), ids[order], gradients[order], where=where[order], unique_ids=True
        )
        for result in (ordered, shuffled):
            assert_equal(result, expected, rtol=1e-6, atol=1e-6)


def test_stochastic_rounding_leaves_the_neighbors_bits_alone(key):
    optimizer = embedding.sgd(2.0**-12)
    plain = jnp.asarray(table_of(25, 64), jnp.bfloat16)
    update = jax.jit(optimizer.update)
    table, slots = packed_rows.pack(plain), optimizer.init(plain)
    for step in range(64):
        key_of_step = jax.random.fold_in(key, step)
        table, slots = update(table, slots, jnp.asarray([6, 9]), -jnp.ones((2, 64)), key=key_of_step)
    moved = np.asarray(packed_rows.unpack(table), np.float32) - np.asarray(plain, np.float32)
    np.testing.assert_array_equal(np.delete(moved, [6, 9], axis=0), 0)
    assert moved[[6, 9]].mean() == pytest.approx(64 * 2.0**-12, abs=3e-3)


@pytest.mark.parametrize("dim", [10, 64])
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_ranks_in_a_packed_table_are_those_in_the_plain_one(dim, chunk_size):
    table = jnp.asarray(table_of(41, dim))
    vectors, rng = jnp.asarray(table_of(5, dim, seed=4)), np.random.default_rng(5)
    target, exclude = jnp.asarray(rng.integers(1, 41, 5)), jnp.asarray(rng.integers(0, 41, (5, 3)))
    rank = {"exclude": exclude, "chunk_size": chunk_size}
    plain = scoring.full_catalogue_rank(vectors, table, target, **rank)
    packed = scoring.full_catalogue_rank(vectors, packed_rows.pack(table), target, **rank)
    np.testing.assert_array_equal(packed, plain)
