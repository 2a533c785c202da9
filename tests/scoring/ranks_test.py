"""Ranks and top-k lists against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax import scoring


def brute_rank(row, target, exclude, ties):
    allowed = [v for v in range(1, len(row)) if v == target or v not in exclude]
    better = sum(row[v] > row[target] for v in allowed)
    tied = sum(row[v] == row[target] for v in allowed) - 1
    return 1 + better + {"optimistic": 0, "pessimistic": tied, "average": -(-tied // 2)}[ties]


def brute_top_k(row, k, exclude):
    allowed = [v for v in range(1, len(row)) if v not in exclude]
    ids = sorted(allowed, key=lambda v: (-row[v], v))[:k]
    return ids + [-1] * (k - len(ids))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    levels=st.integers(1, 9),
    ties=st.sampled_from(["average", "optimistic", "pessimistic"]),
)
def test_rank_equals_brute_force(seed, levels, ties):
    # Negative numbers, such as the -1 of a short list, and numbers from 12 on are of no item.
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (6, 12)).astype(np.float32)
    target, exclude = rng.integers(1, 12, 6), rng.integers(-2, 15, (6, 5))
    ranks = scoring.target_rank(jnp.asarray(scores), jnp.asarray(target), exclude=jnp.asarray(exclude), ties=ties)
    expected = [brute_rank(r, t, set(e.tolist()), ties) for r, t, e in zip(scores, target, exclude, strict=True)]
    assert ranks.tolist() == expected
    vectors, target, exclude = map(jnp.asarray, (scores, target, exclude))
    ranks = scoring.full_catalogue_rank(vectors, jnp.eye(12), target, exclude=exclude, ties=ties)
    assert ranks.tolist() == expected
    better, equal = scoring.full_catalogue_counts(vectors, jnp.eye(12), target, exclude=exclude)
    assert scoring.rank_of_counts(better, equal, ties=ties).tolist() == expected


def test_a_long_history_is_excluded_as_a_short_one():
    """Repetitions among many items are found by sorting."""
    rng = np.random.default_rng(0)
    vectors, table = jnp.asarray(rng.integers(0, 3, (4, 2)), float), jnp.asarray(rng.integers(0, 3, (300, 2)), float)
    target, exclude = jnp.asarray(rng.integers(1, 300, 4)), rng.integers(-5, 320, (4, 250))
    exclude[0, :9] = target[0]
    scores = np.asarray(vectors @ table.T)
    for ties in scoring.TIES:
        ranks = scoring.full_catalogue_rank(vectors, table, target, exclude=jnp.asarray(exclude), ties=ties)
        expected = [brute_rank(scores[n], int(target[n]), set(exclude[n].tolist()), ties) for n in range(4)]
        assert ranks.tolist() == expected


def test_constant_scores_give_the_middle_rank():
    rank = scoring.target_rank(jnp.zeros((1, 1002)), jnp.asarray([7]), exclude=jnp.zeros((1, 3), jnp.int32))
    assert rank.tolist() == [501]


@pytest.mark.parametrize("ties", ["average", "optimistic", "pessimistic"])
def test_nan_scores_never_look_good(ties):
    scores = jnp.asarray([[0.0, jnp.nan, 1.0, 2.0], [0.0, 3.0, jnp.nan, jnp.nan]])
    ranks = scoring.target_rank(scores, jnp.asarray([1, 1]), exclude=jnp.zeros((2, 1), jnp.int32), ties=ties)
    assert ranks.tolist() == [3, 3]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    chunk=st.sampled_from([None, 1, 4, 13]),
    ties=st.sampled_from(scoring.TIES),
    broken=st.booleans(),
)
def test_rank_by_chunks_equals_the_rank_in_the_whole_score_matrix(seed, chunk, ties, broken):
    # Small integers, so that every product is exact whatever its shape; some infinite or NaN.
    rng = np.random.default_rng(seed)
    vectors, table = (rng.integers(-1, 2, shape).astype(np.float32) for shape in ((5, 2), (14, 2)))
    if broken:
        table[rng.integers(0, 14, 2), rng.integers(0, 2, 2)] = rng.choice([np.nan, np.inf, -np.inf], 2)
    target, exclude = jnp.asarray(rng.integers(1, 14, 5)), jnp.asarray(rng.integers(0, 14, (5, 6)))
    vectors, table = jnp.asarray(vectors), jnp.asarray(table)
    expected = scoring.target_rank(scoring.scores(vectors, table), target, exclude=exclude, ties=ties)
    ranks = scoring.full_catalogue_rank(vectors, table, target, exclude=exclude, ties=ties, chunk_size=chunk)
    assert ranks.tolist() == expected.tolist()
    assert ranks.dtype == jnp.int32


@pytest.mark.parametrize("width", [10, 100])
@pytest.mark.parametrize("chunk", [64, 100, 160, None])
def test_items_alike_tie_with_the_target_in_whatever_chunk_they_stand(key, width, chunk):
    keys = jax.random.split(key, 3)
    vectors, table = jax.random.normal(keys[0], (70, width)), jax.random.normal(keys[1], (200, width))
    target, nothing = jax.random.randint(keys[2], (70,), 1, 200), jnp.zeros((70, 1), jnp.int32)
    single = scoring.full_catalogue_rank(vectors, table, target, exclude=nothing, chunk_size=chunk)
    # The twin of the padding is an item like others.
    above = (vectors @ table[0]) > (vectors * table[target]).sum(1)
    twice = jnp.concatenate([table, table])
    for ties, more in (("optimistic", 0), ("average", 1), ("pessimistic", 1)):
        rank = scoring.full_catalogue_rank(vectors, twice, target, exclude=nothing, ties=ties, chunk_size=chunk)
        assert (rank - (2 * (single - 1) + 1 + above + more)).tolist() == [0] * 70, ties


def test_rank_by_chunks_holds_no_score_matrix():
    batch, items = 64, 50_000
    shapes = [((batch, 8), jnp.float32), ((items, 8), jnp.float32), ((batch,), jnp.int32), ((batch, 10), jnp.int32)]
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]

    def rank(vectors, table, target, exclude):
        return scoring.full_catalogue_rank(vectors, table, target, exclude=exclude, chunk_size=1000)

    memory = jax.jit(rank).lower(*arguments).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.1 * 4 * batch * items


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), chunk=st.sampled_from([None, 1, 3, 5, 14, 50]), k=st.integers(1, 16))
def test_top_k_equals_brute_force_in_any_chunking_with_ties_to_the_lower_id(seed, chunk, k):
    rng = np.random.default_rng(seed)
    vectors, table = rng.integers(-1, 2, (4, 2)), rng.integers(-1, 2, (14, 2))
    exclude = rng.integers(0, 14, (4, 6))
    values, ids = scoring.top_k(
        jnp.asarray(vectors, jnp.float32),
        jnp.asarray(table, jnp.float32),
        k,
        exclude=jnp.asarray(exclude),
        chunk_size=chunk,
    )
    scores = vectors @ table.T
    for b in range(4):
        expected = brute_top_k(scores[b], k, set(exclude[b].tolist()))
        assert ids[b].tolist() == expected
        assert values[b].tolist() == [float(scores[b, v]) if v > 0 else -np.inf for v in expected]


def test_rank_and_top_k_agree(key):
    u_key, y_key, t_key = jax.random.split(key, 3)
    vectors, table = jax.random.normal(u_key, (50, 8)), jax.random.normal(y_key, (40, 8))
    exclude = jnp.tile(jnp.asarray([[3, 5, 0]]), (50, 1))
    target = jax.random.randint(t_key, (50,), 6, 40)
    ranks = scoring.target_rank(scoring.scores(vectors, table), target, exclude=exclude)
    _, ids = scoring.top_k(vectors, table, 37, exclude=exclude)
    assert (jnp.argmax(ids == target[:, None], axis=1) + 1).tolist() == ranks.tolist()


@pytest.mark.usefixtures("unchecked_types")
def test_bad_sizes_are_refused():
    table, exclude = jnp.ones((3, 2)), jnp.zeros((1, 1), jnp.int32)
    with pytest.raises(ValueError, match="k is 0"):
        scoring.top_k(jnp.ones((1, 2)), table, 0, exclude=exclude)
    for wrong in (2.5, True):
        with pytest.raises(ValueError, match=r"k is .*; expected a whole number"):
            scoring.top_k(jnp.ones((1, 2)), table, wrong, exclude=exclude)
    for wrong in (0, 3, -1):
        with pytest.raises(ValueError, match=rf"target span {wrong}\.\.{wrong}; expected 1\.\.2"):
            scoring.full_catalogue_rank(jnp.ones((1, 2)), table, jnp.full(1, wrong), exclude=exclude)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        scoring.top_k(jnp.ones((1, 2)), table, 1, exclude=exclude, chunk_size=0)
    with pytest.raises(ValueError, match="chunk_size is 0"):
        scoring.full_catalogue_rank(jnp.ones((1, 2)), table, jnp.ones(1, jnp.int32), exclude=exclude, chunk_size=0)
    with pytest.raises(ValueError, match="ties is 'best'; expected 'average'"):
        scoring.full_catalogue_rank(jnp.ones((1, 2)), table, jnp.ones(1, jnp.int32), exclude=exclude, ties="best")
    with pytest.raises(ValueError, match="ties is 'best'"):
        scoring.target_rank(jnp.ones((1, 3)), jnp.ones(1, jnp.int32), exclude=exclude, ties="best")
