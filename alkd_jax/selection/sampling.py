"""Sampling distinct sessions from a policy, without replacement."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key, UInt

from alkd_jax.checks import check_count, check_one_of, check_where, is_concrete
from alkd_jax.maxmin import RankedGame, sample_with_resolving
from alkd_jax.maxmin.game import FloatArray
from alkd_jax.selection import threshold
from alkd_jax.selection.difficulty import check_num
from alkd_jax.sharding import DATA, MODEL, device_put_global, shard_map_unchecked

RandomKey = Key[Array, ""] | UInt[Array, "2"]

RANDOM_BLOCK = 2**20
"""Sessions whose random numbers come from one key. Changing it changes every selection of a given seed."""

MAX_TOP_K = 2**12
"""Up to this many sessions, merging the top k of every block is faster than counting above a threshold."""

_AXES = (DATA, MODEL)


def select(
    key: RandomKey,
    policy: FloatArray | RankedGame,
    *,
    num: int = 500,
    resolve: str = "once",
    mesh: Mesh | None = None,
) -> Int[Array, " num"]:
    """Samples distinct sessions from a policy, without replacement.

    Each draw is proportional to the probabilities of the remaining sessions. The sessions with the largest
    ``log p_s + Gumbel_s`` have this distribution (the Gumbel-top-k trick).

    Args:
        key: a JAX key; the function consumes it. The result depends on it and on N, not on devices or memory.
        policy: ``[N]`` log p up to a constant, -inf for sessions that are never drawn. With ``resolve="each"``, the
            game itself.
        num: number of sessions to draw.
        resolve: "once" samples from the given policy, as in the paper. "each" solves the game of the remaining
            sessions, with their ranks recomputed, before every draw, as the released notebooks do (there with
            ``RankedGame(rank, policy="closed_form", drop_last=True)``).
        mesh: devices that each hold a part of the sessions, with ``resolve="once"``; by default the first device.

    Returns:
        Indices ``[num]`` int32, in the order of the draws. Inside ``jit``, where the size of the support is unknown, -1
        fills the list of a policy whose support is smaller than ``num``.

    Raises:
        ValueError: fewer than ``num`` sessions have a positive probability, an entry is NaN or +inf, or the policy is
            not of the type that ``resolve`` requires.

    Reference:
        Du et al., AAAI 2025, Algorithm 1; Kool et al., Stochastic beams and where to find them, ICML 2019.

    Example:
        >>> log_policy = jnp.log(jnp.array([0.5, 0.3, 0.2, 0.0]))
        >>> chosen = alkd.select_sessions(jax.random.key(0), log_policy, num=3)
        >>> sorted(chosen.tolist())
        [0, 1, 2]
    """
    check_one_of("resolve", resolve, ("once", "each"))
    if isinstance(policy, RankedGame) != (resolve == "each"):
        expected = "a RankedGame" if resolve == "each" else "an array of log p"
        raise ValueError(f'type of policy is {type(policy).__name__}; expected {expected} for resolve="{resolve}"')
    if isinstance(policy, RankedGame):
        check_num(num, policy.rank)
        return sample_with_resolving(key, policy, num=num)
    log_policy = policy
    check_where(log_policy < jnp.inf, "log_policy", log_policy, "a logarithm of a probability")
    is_in_support = log_policy > -jnp.inf
    largest = int(is_in_support.sum()) if is_concrete(is_in_support) else log_policy.shape[0]
    check_count(1, num=num)
    if num > largest:
        raise ValueError(f"num is {num}; expected 1 to {largest}, the number of sessions of positive probability")
    blocks = _blocks(log_policy, 1 if mesh is None else mesh.size)
    if mesh is None:
        return _select(key, blocks, num=num)
    if is_concrete(blocks):
        key, blocks = (
            device_put_global(key, NamedSharding(mesh, P())),
            device_put_global(blocks, NamedSharding(mesh, P(_AXES))),
        )
    return _select_on_mesh(key, blocks, num=num, mesh=mesh)


def _blocks(log_policy: FloatArray, num_devices: int) -> Float[Array, "M C"]:
    """The policy in the blocks of its random numbers, padded with -inf to the same number of blocks for each device."""
    size = min(log_policy.shape[0], RANDOM_BLOCK)
    num_blocks = -(-log_policy.shape[0] // (size * num_devices)) * num_devices
    padded_log_policy = jnp.pad(
        jnp.asarray(log_policy, jnp.float32), (0, num_blocks * size - log_policy.shape[0]), constant_values=-jnp.inf
    )
    return padded_log_policy.reshape(num_blocks, size)


def _perturbed(key: RandomKey, number: Int[Array, ""], log_weight: Float[Array, " C"]) -> Float[Array, " C"]:
    """``log p + Gumbel`` of one block; the number of the block is folded into the key."""
    # The default mode has 2^23 levels, which are too few to order the largest of a million random numbers.
    return log_weight + jax.random.gumbel(
        jax.random.fold_in(key, number), log_weight.shape, jnp.float32, mode="highest"
    )


@functools.partial(jax.jit, static_argnames="num")
def _select(key: RandomKey, blocks: Float[Array, "M C"], *, num: int) -> Int[Array, " num"]:
    """Samples on one device: few sessions by the top k of every block, many by a threshold, with the same result."""
    num_blocks, size = blocks.shape
    if num > MAX_TOP_K:
        return _sample_by_threshold(key, blocks, num=num)

    def top_k_of_block(block: tuple[Array, Array]) -> tuple[Array, Array]:
        number, log_weight = block
        largest, position = jax.lax.top_k(_perturbed(key, number, log_weight), min(num, size))
        return largest, number * size + position

    largest, index = jax.lax.map(top_k_of_block, (jnp.arange(num_blocks, dtype=jnp.int32), blocks))
    largest, position = jax.lax.top_k(largest.ravel(), num)
    return jnp.where(largest > -jnp.inf, index.ravel()[position], -1)


@functools.partial(jax.jit, static_argnames=("num", "mesh"))
def _select_on_mesh(key: RandomKey, blocks: Float[Array, "M C"], *, num: int, mesh: Mesh) -> Int[Array, " num"]:
    """Samples on several devices, each of which holds some of the blocks."""
    sample = functools.partial(_sample_by_threshold, num=num, axes=_AXES)
    return shard_map_unchecked(sample, mesh, (P(), P(_AXES)), P())(key, blocks)


def _sample_by_threshold(
    key: RandomKey, blocks: Float[Array, "M C"], *, num: int, axes: threshold.Axes = ()
) -> Int[Array, " num"]:
    """Samples the sessions with the largest perturbed log p among the blocks of all devices."""
    first_block = (jax.lax.axis_index(axes) if axes else 0) * blocks.shape[0]
    numbers = first_block + jnp.arange(blocks.shape[0], dtype=jnp.int32)
    bits = jax.lax.map(lambda block: threshold.ordered_bits(_perturbed(key, *block)), (numbers, blocks))
    value, index = threshold.k_largest(bits.ravel(), num, axes=axes)
    return jnp.where(value > threshold.ordered_bits(jnp.float32(-jnp.inf)), index, -1)


def random_policy(num_sessions: int) -> Float[Array, " N"]:
    """The uniform policy over sessions, as logarithms ``[N]``.

    Raises:
        ValueError: there is no session.
    """
    check_count(1, num_sessions=num_sessions)
    return jnp.full(num_sessions, -math.log(num_sessions), jnp.float32)
