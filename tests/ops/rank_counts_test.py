"""Counts over the catalogue: the sizes of chunks on each platform, and counts in chunks of any size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.ops import rank_counts
from alkd_jax.ops.products import scores


def test_chunks_on_a_cpu_are_nearly_equal_and_no_larger_than_its_cache_holds():
    assert rank_counts._cpu_chunk_size(10_240) == 1152, "nine chunks of six times 192"
    assert rank_counts._cpu_chunk_size(9_600) == 960, "ten chunks, which overlap less than nine"


def test_chunks_on_a_device_are_chosen_by_the_memory_of_their_scores():
    assert rank_counts._device_chunk_size(512, 10_240) == 10_240
    assert 4 * 512 * rank_counts._device_chunk_size(512, 10**6) == 2**28
    assert rank_counts._device_chunk_size(2**30, 10_240) == 1


@pytest.mark.parametrize(("chunk", "lanes"), [(64, 1), (64, 64), (130, 1), (192, 64), (229, 1)])
def test_chunks_and_lanes_do_not_change_a_count(key, chunk, lanes):
    keys = jax.random.split(key, 3)
    vectors, table = jax.random.normal(keys[0], (29, 8)), jax.random.normal(keys[1], (200, 8))
    target, excluded = jax.random.randint(keys[2], (29,), 1, 200), jnp.arange(29)[:, None] + jnp.asarray([[3, 90]])

    def is_better(all_scores, target_score):
        return (all_scores > target_score).astype(jnp.int32)

    count = functools.partial(rank_counts._count_in_chunks, is_better, scores, 200, chunk, lanes)
    found = jax.jit(count)(vectors, table, table[target], excluded, jnp.ones(excluded.shape, bool))
    all_scores = np.asarray(scores(vectors, table))
    better = all_scores > np.take_along_axis(all_scores, np.asarray(target)[:, None], 1)
    np.put_along_axis(better, np.asarray(excluded), False, 1)
    np.testing.assert_array_equal(found, better.sum(1))
