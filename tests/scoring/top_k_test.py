"""The chunked, binned top k against a stable sort of all scores."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import scoring
from alkd_jax.ops import chunked_top_k, top_k

INF = np.inf


def by_sorting(all_scores, k, exclude):
    """The reference: numpy float64, best first, ties to the lower id, −1 where fewer than k remain."""
    kept = np.where(np.isnan(all_scores), -INF, all_scores.astype(np.float64)) + 0.0
    kept[:, 0] = -INF
    np.put_along_axis(kept, exclude, -INF, axis=1)
    order = np.argsort(-kept, axis=1, kind="stable")[:, :k]
    value = np.take_along_axis(kept, order, axis=1)
    fill = ((0, 0), (0, k - order.shape[1]))
    value, order = np.pad(value, fill, constant_values=-INF), np.pad(order, fill)
    return value, np.where(np.isneginf(value), -1, order)


def whole_numbers(items, *, batch=5, width=3, most=1, seed=0):
    """Vectors, a table and exclusions whose products are exact and often equal."""
    rng = np.random.default_rng(seed)
    vectors, table = (rng.integers(-most, most + 1, shape) for shape in ((batch, width), (items, width)))
    exclude = rng.integers(0, items, (batch, 7))
    exclude[:, :2] = [0, 1]
    return vectors.astype(np.float32), table.astype(np.float32), exclude


def check(vectors, table, k, exclude, **options):
    value, ids = scoring.top_k(jnp.asarray(vectors), jnp.asarray(table), k, exclude=jnp.asarray(exclude), **options)
    expected = by_sorting(np.asarray(vectors, np.float32) @ np.asarray(table, np.float32).T, k, exclude)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(value, expected[0])
    assert ids.dtype == jnp.int32


@pytest.mark.parametrize(
    ("items", "k", "chunk"),
    [
        (2001, 3, None),
        (2001, 3, 768),
        (1999, 3, 1000),
        (1537, 1, 256),
        (12_001, 20, 5120),
        (3001, 40, 700),
        (64, 5, 63),
    ],
)
def test_lists_equal_a_stable_sort_with_many_ties_and_odd_sizes(items, k, chunk):
    check(*(case := whole_numbers(items))[:2], k, case[2], chunk_size=chunk)


def test_equal_items_keep_their_order_though_a_later_bin_holds_a_better_one():
    table = np.zeros((2000, 1), np.float32)
    table[[70, 80, 140, 150, 1900], 0] = [5, 5, 9, 5, 5]
    check(np.ones((1, 1), np.float32), table, 3, np.asarray([[4]]), chunk_size=1024)


@pytest.mark.parametrize("better", [0, 1, 5, 6, 20, 60])
def test_a_later_chunk_may_hold_any_number_of_better_items(better):
    table = np.ones((12_000, 1), np.float32)
    table[5120 + 64 * np.arange(better) + 3] = 2.0
    table[11_999] = 3.0
    check(np.ones((1, 1), np.float32), table, 20, np.asarray([[5, 0]]), chunk_size=5120)


def test_sessions_come_in_tiles_that_need_not_divide_them(monkeypatch):
    monkeypatch.setattr(chunked_top_k, "_CPU_SCORES", 2 * 1024)
    vectors, table, exclude = whole_numbers(3000, batch=5)
    assert chunked_top_k._sizes(vectors.shape, 3000, 3, 1024, True) == (2, 1024)
    jax.clear_caches()
    check(vectors, table, 3, exclude, chunk_size=1024)


def test_fewer_items_than_wanted_are_filled_up():
    check(*(case := whole_numbers(6))[:2], 9, case[2][:, :3])
    table = np.full((1024, 2), np.nan, np.float32)
    table[[0, 3, 700]] = 1.0
    check(np.ones((1, 2), np.float32), table, 3, np.asarray([[3]]))


def test_a_bfloat16_table_gives_the_lists_of_the_same_table_in_float32():
    vectors, table, exclude = whole_numbers(2001, most=9)
    check(jnp.asarray(vectors), jnp.asarray(table, jnp.bfloat16), 3, exclude, chunk_size=768)
    # Both narrow: 1 + 2⁻⁹ needs float32 to be distinguished from 1.
    u, y = jnp.ones((1, 2), jnp.bfloat16), jnp.asarray([[0, 0], [1, 0], [1, 2.0**-9]], jnp.bfloat16)
    value, ids = scoring.top_k(u, y, 2, exclude=jnp.zeros((1, 1), jnp.int32))
    assert ids.tolist() == [[2, 1]]
    assert value.tolist() == [[1 + 2.0**-9, 1.0]]


def test_sessions_of_several_vectors_are_pooled_before_they_are_listed(key):
    keys = jax.random.split(key, 2)
    vectors, table = jax.random.normal(keys[0], (4, 3, 5)), jax.random.normal(keys[1], (1100, 5))
    exclude = np.asarray([[9, 0]] * 4)
    value, ids = scoring.top_k(vectors, table, 4, exclude=jnp.asarray(exclude), chunk_size=1024)
    expected = by_sorting(np.asarray(scoring.scores(vectors, table)), 4, exclude)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)


def test_infinite_missing_and_negative_zero_scores_have_their_places():
    table = np.zeros((1030, 1), np.float32)
    table[[2, 700, 900, 901], 0] = [-0.0, np.inf, np.nan, -np.inf]
    table[0] = np.inf
    with np.errstate(invalid="ignore"):
        check(np.ones((2, 1), np.float32), table, 4, np.asarray([[700], [1]]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("k", [10, 40])
def test_memory_does_not_grow_with_the_catalogue(dtype, k):
    def temporaries(items):
        shapes = [((16, 8), jnp.float32), ((items, 8), dtype), ((16, 10), jnp.int32)]
        ranked = jax.jit(lambda u, y, e: scoring.top_k(u, y, k, exclude=e))
        compiled = ranked.lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = temporaries(300_000), temporaries(2_400_000)
    assert large < small + 4096
    assert large < 0.3 * 4 * 16 * 2_400_000


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ranks_of_a_narrow_table_need_no_wide_copy_of_it(dtype):
    shapes = [((16, 8), jnp.float32), ((400_000, 8), dtype), ((16,), jnp.int32), ((16, 10), jnp.int32)]
    ranked = jax.jit(lambda u, y, t, e: scoring.full_catalogue_rank(u, y, t, exclude=e))
    compiled = ranked.lower(*(jax.ShapeDtypeStruct(*shape) for shape in shapes)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * 4 * 8 * 400_000


def test_lists_of_many_sessions_are_the_same_in_pieces(monkeypatch):
    vectors, table, exclude = map(jnp.asarray, whole_numbers(700, batch=41))
    whole = scoring.top_k(vectors, table, 9, exclude=exclude)
    monkeypatch.setattr(top_k, "_MIN_SIZE_TO_SPLIT", 1)
    jax.clear_caches()
    check(vectors, table, 2, np.asarray(exclude))
    for mine, wanted in zip(scoring.top_k(vectors, table, 9, exclude=exclude), whole, strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_a_single_session_reads_the_table_as_it_is():
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 8), (100_000, 8))]
    assert " copy(" not in jax.jit(scoring.scores).lower(*shapes).compile().as_text()
    ranked = jax.jit(lambda u, y: scoring.top_k(u, y, 3, exclude=jnp.zeros((1, 2), jnp.int32)))
    for dtype in (jnp.float32, jnp.bfloat16):
        shapes = [jax.ShapeDtypeStruct(shape, kept) for shape, kept in (((1, 64), jnp.float32), ((400_000, 64), dtype))]
        assert ranked.lower(*shapes).compile().memory_analysis().temp_size_in_bytes < 4 * 64 * 400_000 / 4


@pytest.mark.parametrize("k", [3, 12])
def test_a_program_for_any_number_of_sessions_lists_the_same(k):
    vectors, table, exclude = whole_numbers(64 * chunked_top_k._MIN_BIN_RATIO * k + 5)
    listed = jax.jit(lambda u, seen: scoring.top_k(u, jnp.asarray(table), k, exclude=seen))
    (batch,) = jax.export.symbolic_shape("b")
    shapes = (
        jax.ShapeDtypeStruct((batch, vectors.shape[1]), vectors.dtype),
        jax.ShapeDtypeStruct((batch, exclude.shape[1]), jnp.int32),
    )
    found = jax.export.export(listed)(*shapes).call(vectors, exclude)
    for mine, wanted in zip(found, by_sorting(vectors @ table.T, k, exclude), strict=True):
        np.testing.assert_array_equal(mine, wanted)
