"""The largest values of rows against a stable sort, by the program of each platform; the sizes of a chunked search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.ops import chunked_top_k, top_k


def check(found, values, k):
    value, place = found
    np.testing.assert_array_equal(place, np.argsort(-values, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(value, np.take_along_axis(values, np.asarray(place), 1))


def unstable_top_k(values, k):
    """Equal values in the wrong order: what a top k that need not be stable may give."""
    value, place = jax.lax.top_k(values[:, ::-1], k)
    return value, values.shape[1] - 1 - place


@pytest.mark.parametrize("levels", [3, 10_000])
def test_an_unstable_top_k_is_put_in_order(monkeypatch, levels):
    monkeypatch.setattr(top_k, "_unstable_top_k", unstable_top_k)
    values = np.random.default_rng(levels).integers(0, levels, (6, 300)).astype(np.float32)
    values[0] = values[0, 7] = 1.0
    check(top_k._sorted_top_k(jnp.asarray(values), 20), values, 20)


@pytest.mark.parametrize(("k", "is_sorted_after"), [(20, True), (16, False)])
def test_a_gpu_sorts_the_result_of_an_unstable_top_k_where_a_stable_one_would_sort_whole_rows(
    monkeypatch, k, is_sorted_after
):
    if jax.__version_info__ < (0, 11):  # whose top k is always stable and takes no such option
        monkeypatch.setattr(top_k, "_HAS_UNSTABLE", True)
        monkeypatch.setattr(top_k, "_UNSTABLE", {})
    values = np.random.default_rng(0).integers(0, 50, (6, 300)).astype(np.float32)
    jitted = jax.jit(functools.partial(top_k.stable_top_k, k=k))
    traced = jitted.trace(values)
    assert ("sort" in traced.lower(lowering_platforms=("cuda",)).as_text()) == is_sorted_after
    assert "sort" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    check(jitted(values), values, k)


@pytest.mark.parametrize("rows", [top_k._NUM_PIECES, 53])
def test_a_cpu_takes_rows_in_pieces_that_run_side_by_side(monkeypatch, rows):
    monkeypatch.setattr(top_k, "_MIN_SIZE_TO_SPLIT", rows * 300)
    values = np.random.default_rng(rows).integers(0, 9, (rows, 300)).astype(np.float32)
    traced = jax.jit(functools.partial(top_k.stable_top_k, k=20)).trace(values)
    found = traced.lower().compile()
    check(found(values), values, 20)
    # XLA gives nothing away of what is ready until there are more than eight.
    assert found.as_text().count('custom_call_target="TopK"') == top_k._NUM_PIECES > 9
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("chlo.top_k") == 1


def test_a_cpu_scores_what_its_cache_holds_and_a_device_a_gibibyte_at_a_time():
    on_cpu = chunked_top_k._sizes((512, 8), 10**7, 10, None, True)
    assert on_cpu[0] * on_cpu[1] <= chunked_top_k._CPU_SCORES
    tile, chunk = chunked_top_k._sizes((5000, 8), 10**7, 10, None, False)
    assert tile == 4096
    assert 2**27 < tile * chunk <= 2**28
    assert chunked_top_k._sizes((5000, 8), 1000, 10, None, False) == (4096, 1000)
    assert chunked_top_k._sizes((1, 20, 8), 10**7, 10, None, False)[1] * 20 <= 2**28
