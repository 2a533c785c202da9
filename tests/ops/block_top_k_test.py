"""The search in blocks, which TPUs run, against a stable sort of all scores; here it runs on the CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax.ops import block_top_k as blocks

search = functools.partial(jax.jit, static_argnames=("k", "chunk_size"))(blocks.block_top_k)


def by_sorting(scores, k, exclude, items):
    kept = np.where(np.isnan(scores), -np.inf, scores.astype(np.float64)) + 0.0
    rows = np.arange(scores.shape[1])
    kept[:, (rows < items[0]) | (rows >= items[1])] = -np.inf
    for session, excluded in enumerate(exclude):
        kept[session, excluded[(excluded >= 0) & (excluded < scores.shape[1])]] = -np.inf
    order = np.argsort(-kept, axis=1, kind="stable")[:, :k]
    value = np.take_along_axis(kept, order, axis=1)
    return value, np.where(np.isneginf(value), -1, order)


def check(vectors, table, k, exclude, *, items=None, chunk_size=None):
    items = (1, len(table)) if items is None else items
    value, ids = search(
        jnp.asarray(vectors), jnp.asarray(table), jnp.asarray(exclude), items, k=k, chunk_size=chunk_size
    )
    expected = by_sorting(np.asarray(vectors) @ np.asarray(table).T, k, exclude, items)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(value, expected[0])
    assert not (np.signbit(value) & (np.asarray(value) == 0)).any()
    assert ids.dtype == jnp.int32


def whole_numbers(rng, batch, num_rows, most=2, num_excluded=5):
    vectors, table = (rng.integers(-most, most + 1, (num, 3)).astype(np.float32) for num in (batch, num_rows))
    exclude = rng.integers(-2, num_rows + 3, (batch, num_excluded)).astype(np.int32)
    return vectors, table, exclude


@pytest.mark.parametrize(
    ("batch", "num_rows", "k", "chunk_size"),
    [
        (3, 100, 5, None),
        (5, 129, 20, None),
        (9, 1000, 3, 256),
        (2, 1001, 3, 100),
        (4, 5000, 8, None),
        (3, 9001, 30, None),
        (3, 9001, 30, 4096),
        (530, 700, 4, 512),
        (1, 40, 30, None),
    ],
)
def test_lists_equal_a_stable_sort_with_many_ties_and_odd_sizes(batch, num_rows, k, chunk_size):
    vectors, table, exclude = whole_numbers(np.random.default_rng(0), batch, num_rows)
    check(vectors, table, min(k, num_rows), exclude, chunk_size=chunk_size)


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 9]), st.booleans())
@settings(max_examples=30)
def test_lists_equal_a_stable_sort_of_random_scores(seed, most, has_holes):
    rng = np.random.default_rng(seed)
    vectors, table, exclude = whole_numbers(rng, 4, 3001, most)
    if has_holes:
        table[rng.integers(0, 3001, 50), 0] = np.nan
        table[rng.integers(0, 3001, 50), 1] = -0.0
    check(vectors, table, 12, exclude, items=(1, 3001), chunk_size=1024)


@pytest.mark.parametrize(
    ("num_rows", "num", "name", "options"),
    [
        (256, 20, "_by_sort", {}),
        (6400, 2, "_by_blocks", {}),
        (12_800, 8, "_by_parts", {"size": 64}),
        (5120, 6, "_by_parts", {"size": 32}),
    ],
)
def test_the_sizes_decide_the_way_of_searching_a_chunk(num_rows, num, name, options):
    way = blocks._choose_way(num_rows // 128, num)
    assert getattr(way, "func", way) is getattr(blocks, name)
    assert getattr(way, "keywords", {}) == options
    negated = np.random.default_rng(1).integers(-3, 4, (num_rows // 128, 8, 128)).astype(np.float32)
    flat = negated.transpose(1, 0, 2).reshape(8, -1)
    expected = np.argsort(flat, axis=1, kind="stable")[:, :num]
    numbers, ids = way(jnp.asarray(negated), jnp.int32(7), num)
    np.testing.assert_array_equal(ids, expected + 7)
    np.testing.assert_array_equal(numbers, np.take_along_axis(flat, expected, axis=1))


def test_only_the_given_range_is_ranked_and_a_short_list_is_filled():
    vectors, table, exclude = whole_numbers(np.random.default_rng(2), 3, 400)
    check(vectors, table, 10, exclude, items=(131, 139))
    check(vectors, table, 10, exclude, items=(5, 5))


def test_a_session_of_several_vectors_is_scored_by_their_log_sum_exp():
    rng = np.random.default_rng(3)
    vectors, table = rng.normal(size=(4, 6, 5)).astype(np.float32), rng.normal(size=(700, 5)).astype(np.float32)
    value, ids = search(jnp.asarray(vectors), jnp.asarray(table), jnp.zeros((4, 1), jnp.int32), (1, 700), k=9)
    scores = np.log(np.exp(np.einsum("bld,vd->blv", vectors, table)).sum(1))
    expected = by_sorting(scores, 9, np.zeros((4, 1), np.int32), (1, 700))
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    assert (np.asarray(ids) == expected[1]).mean() > 0.95


def test_a_table_in_bfloat16_is_accumulated_in_float32():
    vectors, table, exclude = whole_numbers(np.random.default_rng(4), 3, 500)
    value, ids = search(jnp.asarray(vectors), jnp.asarray(table, jnp.bfloat16), jnp.asarray(exclude), (1, 500), k=6)
    expected = by_sorting(vectors @ table.T, 6, exclude, (1, 500))
    np.testing.assert_array_equal(ids, expected[1])
    assert value.dtype == jnp.float32
