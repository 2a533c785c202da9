"""Which sessions to ask the LLM about: difficulty, gains, and the draw from a policy."""

import fractions
import functools
import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt

from alkd_jax.maxmin import RankedGame, draw_resolving
from alkd_jax.maxmin.game import BoolArray, FloatArray, IntArray, is_concrete, refuse_where

RandomKey = Key[Array, ""] | UInt[Array, "2"]

# Part of what a seed means: changing it changes every selection.
RANDOM_BLOCK = 2**20


@flax.struct.dataclass
class LogGains:
    """Gains and losses of the selection game; the true logarithm is ``field + log_scale``.

    Attributes:
        effective: ``[N]`` log a.
        similar: ``[N]`` log b.
        incorrect: ``[N]`` log d.
        log_scale: logarithm of the common factor that was left out, which moves no policy.
    """

    effective: Float[Array, "*batch N"]
    similar: Float[Array, "*batch N"]
    incorrect: Float[Array, "*batch N"]
    log_scale: float = flax.struct.field(pytree_node=False)


def difficulty(
    session_vectors: FloatArray,
    item_embeddings: FloatArray,
    items: IntArray,
    mask: BoolArray,
    *,
    chunk_size: int = 2**16,
) -> Float[Array, " N"]:
    """How little the teacher's session vector agrees with the session's own items.

    ``df_s = −(1/|s|) Σ_{v ∈ s} σ(u_s · Y_v)``

    Args:
        session_vectors: ``[N, D]`` the teacher's encoding u of each session.
        item_embeddings: ``[V, D]`` the teacher's output table Y.
        items: ``[N, L]`` rows of that table.
        mask: ``[N, L]`` True on real items; at least one a session.
        chunk_size: sessions taken at a time, which bounds the memory; changes no result.

    Returns:
        Difficulty ``[N]`` in (−1, 0); larger is harder.

    Raises:
        ValueError: shapes disagree, an item lies outside the table, or a session is empty.

    Reference:
        Du et al., AAAI 2025, "Difficulty of instances".
    """
    num_sessions, dim = session_vectors.shape
    num_rows = item_embeddings.shape[0]
    if item_embeddings.shape[1] != dim:
        raise ValueError(f"item_embeddings have width {item_embeddings.shape[1]}; expected {dim}, as session_vectors")
    for name, array in (("items", items), ("mask", mask)):
        if array.ndim != 2 or array.shape[0] != num_sessions or array.shape != items.shape:
            raise ValueError(f"{name} has shape {list(array.shape)}; expected [{num_sessions}, L], as session_vectors")
    refuse_where((items < 0) | (items >= num_rows), "items", items, f"a row of the table, 0 to {num_rows - 1}")
    length = mask.sum(axis=1)
    refuse_where(length < 1, "the length of session", length, "at least 1 real item")
    return _difficulty(*map(jnp.asarray, (session_vectors, item_embeddings, items, mask)), chunk_size=chunk_size)


@functools.partial(jax.jit, static_argnames="chunk_size")
def _difficulty(
    session_vectors: Float[Array, "N D"],
    item_embeddings: Float[Array, "V D"],
    items: Int[Array, "N L"],
    mask: Bool[Array, "N L"],
    *,
    chunk_size: int,
) -> Float[Array, " N"]:
    def of_session(session: tuple[Array, Array, Array]) -> Float[Array, ""]:
        vector, row, is_real = session
        scores = jnp.einsum("d,ld->l", vector, item_embeddings[row], precision=jax.lax.Precision.HIGHEST)
        return -jnp.mean(jax.nn.sigmoid(scores), where=is_real)

    return jax.lax.map(of_session, (session_vectors, items, mask), batch_size=min(chunk_size, items.shape[0]))


def difficulty_rank(difficulty: FloatArray) -> Int[Array, " N"]:
    """Ranks sessions by difficulty: 1 is the hardest, ties go to the lower index.

    Args:
        difficulty: ``[N]``, larger is harder.

    Returns:
        Rank ``[N]`` int32, a permutation of 1..N.

    Raises:
        ValueError: a difficulty is NaN.
    """
    order = by_difficulty(difficulty, hardest_first=True)
    return jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(1, order.shape[0] + 1, dtype=jnp.int32))


def gains(
    rank: IntArray, *, exponent: float | int = 10, similar_ratio: float = 0.5, incorrect_ratio: float | int = 0.5
) -> LogGains:
    """The paper's gains, as logarithms: the harder the session, the larger what is won and lost.

    ``a_s = rank_s^−μ``, ``b_s = similar_ratio · a_s``, ``d_s = incorrect_ratio · a_s``

    Args:
        rank: ``[N]`` from 1 (hardest) to N.
        exponent: μ ≥ 0.
        similar_ratio: b/a, in (0, 1).
        incorrect_ratio: d/a > 0.

    Returns:
        Gains relative to the easiest session, ``log (rank/N)^−μ``: policies have their weight near it, and float32 is
        finest there (for μ = 10 and N up to 10^8, the gains of the easier half have a relative error below 2e-6).

    Raises:
        ValueError: a rank is below 1, or a number is out of its range.

    Reference:
        Du et al., AAAI 2025, "Gains"; the printed rank is by ascending difficulty, the text and the released code mean
        descending.
    """
    refuse_where(rank < 1, "rank", rank, "at least 1")
    if not (exponent >= 0 and math.isfinite(exponent)):
        raise ValueError(f"exponent is {exponent}; expected a finite number, at least 0")
    if not 0 < similar_ratio < 1:
        raise ValueError(f"similar_ratio is {similar_ratio}; expected a number between 0 and 1")
    if not 0 < incorrect_ratio < math.inf:
        raise ValueError(f"incorrect_ratio is {incorrect_ratio}; expected a positive number")
    effective = -exponent * log_fraction(jnp.asarray(rank, jnp.int32), rank.shape[0])
    return LogGains(
        effective=effective,
        similar=effective + math.log(similar_ratio),
        incorrect=effective + math.log(incorrect_ratio),
        log_scale=-exponent * math.log(rank.shape[0]),
    )


def log_fraction(rank: Int[Array, " N"], num_sessions: int) -> Float[Array, " N"]:
    """Returns ``log(rank / num_sessions)``, precise near 0 even where ranks are beyond the integers of float32."""
    missing = (num_sessions - rank).astype(jnp.float32) / num_sessions
    direct = jnp.log(rank.astype(jnp.float32) / num_sessions)
    return jnp.where(rank > num_sessions // 2, jnp.log1p(-missing), direct)


def class_counts(num_sessions: int, ratios: Sequence[float | int] = (1, 5, 4)) -> tuple[int, int, int]:
    """Splits N sessions into effective, similar and incorrect ones.

    Args:
        num_sessions: N.
        ratios: effective : similar : incorrect; at least 0, in any unit.

    Returns:
        ``(k_ef, k_si, k_in)``; the first two are rounded down, the rest is incorrect.

    Raises:
        ValueError: a number is negative, or there are not three ratios with a positive sum.
    """
    if num_sessions < 0:
        raise ValueError(f"num_sessions is {num_sessions}; expected at least 0")
    if len(ratios) != 3 or not all(0 <= ratio < math.inf for ratio in ratios) or sum(ratios) == 0:
        raise ValueError(f"ratios are {ratios}; expected three numbers, at least 0, that are not all 0")
    # Decimal ratios such as 0.3 are meant as written, not as the binary fraction nearest to them.
    exact = [fractions.Fraction(str(ratio)) for ratio in ratios]
    num_effective, num_similar = (math.floor(num_sessions * ratio / sum(exact)) for ratio in exact[:2])
    return num_effective, num_similar, num_sessions - num_effective - num_similar


def select(
    key: RandomKey, policy: FloatArray | RankedGame, *, num: int = 500, resolve: str = "once"
) -> Int[Array, " num"]:
    """Draws distinct sessions from a policy, one after another, each in proportion to its probability among those left.

    This is drawing from the policy and discarding repeats, done at once: the largest of ``log p_s + Gumbel_s``.

    Args:
        key: random key. The draw depends on it and on N, not on devices or memory.
        policy: ``[N]`` log p, -inf for sessions never to be drawn; a common constant changes nothing. With
            ``resolve="each"`` the game itself.
        num: how many to draw.
        resolve: "once" draws from the policy as it is, as the paper has it; "each" solves the game of the sessions that
            are left, their ranks counted anew, before every draw, as the released notebooks do (there with
            ``RankedGame(rank, policy="closed_form", drop_last=True)``).

    Returns:
        Indices ``[num]`` int32, in the order drawn. Inside ``jit``, where the support cannot be counted beforehand, -1
        stands where it was too small.

    Raises:
        ValueError: fewer than ``num`` sessions have a positive probability, an entry is NaN or +inf, or the policy is
            not of the kind that ``resolve`` needs.

    Reference:
        Du et al., AAAI 2025, Algorithm 1; Kool et al., Stochastic beams and where to find them, ICML 2019.
    """
    if resolve not in ("once", "each"):
        raise ValueError(f'resolve is {resolve!r}; expected "once" or "each"')
    if isinstance(policy, RankedGame) != (resolve == "each"):
        wanted = "a RankedGame" if resolve == "each" else "an array of log p"
        raise ValueError(f'the policy is of type {type(policy).__name__}; expected {wanted} for resolve="{resolve}"')
    if isinstance(policy, RankedGame):
        check_num(num, policy.rank)
        return draw_resolving(key, policy, num=num)
    log_policy = policy
    refuse_where(~(log_policy < jnp.inf), "log_policy", log_policy, "a logarithm of a probability")
    has_chance = log_policy > -jnp.inf
    largest = int(has_chance.sum()) if is_concrete(has_chance) else log_policy.shape[0]
    if not 1 <= num <= largest:
        raise ValueError(f"num is {num}; expected 1 to {largest}, the sessions with a positive probability")
    return _select(key, jnp.asarray(log_policy, jnp.float32), num=num)


@functools.partial(jax.jit, static_argnames="num")
def _select(key: RandomKey, log_policy: Float[Array, " N"], *, num: int) -> Int[Array, " num"]:
    size = min(log_policy.shape[0], RANDOM_BLOCK)
    num_blocks = -(-log_policy.shape[0] // size)
    padding = (0, num_blocks * size - log_policy.shape[0])
    blocks = jnp.pad(log_policy, padding, constant_values=-jnp.inf).reshape(num_blocks, size)

    def best_of_block(block: tuple[Array, Array]) -> tuple[Array, Array]:
        number, log_weight = block
        # The default mode has 2^23 levels, too few to order the largest of a million draws.
        noise = jax.random.gumbel(jax.random.fold_in(key, number), (size,), jnp.float32, mode="highest")
        largest, position = jax.lax.top_k(log_weight + noise, min(num, size))
        return largest, number * size + position

    largest, index = jax.lax.map(best_of_block, (jnp.arange(num_blocks, dtype=jnp.int32), blocks))
    largest, position = jax.lax.top_k(largest.ravel(), num)
    return jnp.where(largest > -jnp.inf, index.ravel()[position], -1)


def random_policy(num_sessions: int) -> Float[Array, " N"]:
    """The policy that asks about every session with the same probability, as logarithms ``[N]``.

    Raises:
        ValueError: there is no session.
    """
    if num_sessions < 1:
        raise ValueError(f"num_sessions is {num_sessions}; expected at least 1")
    return jnp.full(num_sessions, -math.log(num_sessions), jnp.float32)


def easiest(difficulty: FloatArray, num: int = 500) -> Int[Array, " num"]:
    """Returns the indices ``[num]`` of the sessions of least difficulty, easiest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=False)[:num]


def hardest(difficulty: FloatArray, num: int = 500) -> Int[Array, " num"]:
    """Returns the indices ``[num]`` of the sessions of largest difficulty, hardest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=True)[:num]


def by_difficulty(difficulty: FloatArray, *, hardest_first: bool) -> Int[Array, " N"]:
    """Returns all indices ``[N]`` in the order of difficulty."""
    refuse_where(jnp.isnan(difficulty), "difficulty", difficulty, "a number")
    order = jnp.argsort(jnp.asarray(difficulty), descending=hardest_first, stable=True)
    return order.astype(jnp.int32)


def check_num(num: int, sessions: FloatArray | IntArray) -> None:
    """Refuses to select more sessions than there are."""
    if not 1 <= num <= sessions.shape[0]:
        raise ValueError(f"num is {num}; expected 1 to {sessions.shape[0]}, the number of sessions")
