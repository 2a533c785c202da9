"""The draw from a policy: distinct sessions, one after another."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Key, UInt

from alkd_jax.maxmin import RankedGame, draw_resolving
from alkd_jax.maxmin.game import FloatArray, is_concrete, refuse_where
from alkd_jax.selection import threshold
from alkd_jax.selection.difficulty import check_num
from alkd_jax.sharding import DATA, MODEL, device_put_global, shard_map_unchecked

RandomKey = Key[Array, ""] | UInt[Array, "2"]

# Part of what a seed means: changing it changes every selection.
RANDOM_BLOCK = 2**20

FEW = 2**12
"""So many are drawn faster from the best of every block than by counting."""

_AXES = (DATA, MODEL)


def select(
    key: RandomKey,
    policy: FloatArray | RankedGame,
    *,
    num: int = 500,
    resolve: str = "once",
    mesh: Mesh | None = None,
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
        mesh: devices to draw on, each among its own sessions, with ``resolve="once"``; by default the first.

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
    blocks = _blocks(log_policy, 1 if mesh is None else mesh.size)
    if mesh is None:
        return _select(key, blocks, num=num)
    if is_concrete(blocks):
        key, blocks = (
            device_put_global(key, NamedSharding(mesh, P())),
            device_put_global(blocks, NamedSharding(mesh, P(_AXES))),
        )
    return _select_in_parts(key, blocks, num=num, mesh=mesh)


def _blocks(log_policy: FloatArray, parts: int) -> Float[Array, "M C"]:
    """The policy in the blocks that its random numbers come in, as many for each part."""
    size = min(log_policy.shape[0], RANDOM_BLOCK)
    num_blocks = -(-log_policy.shape[0] // (size * parts)) * parts
    padded = jnp.pad(
        jnp.asarray(log_policy, jnp.float32), (0, num_blocks * size - log_policy.shape[0]), constant_values=-jnp.inf
    )
    return padded.reshape(num_blocks, size)


def _perturbed(key: RandomKey, number: Int[Array, ""], log_weight: Float[Array, " C"]) -> Float[Array, " C"]:
    """``log p + Gumbel`` of one block; its number decides its random numbers."""
    # The default mode has 2^23 levels, too few to order the largest of a million draws.
    return log_weight + jax.random.gumbel(
        jax.random.fold_in(key, number), log_weight.shape, jnp.float32, mode="highest"
    )


@functools.partial(jax.jit, static_argnames="num")
def _select(key: RandomKey, blocks: Float[Array, "M C"], *, num: int) -> Int[Array, " num"]:
    """The draw on one device: few from the best of every block, many by a threshold, with the same outcome."""
    num_blocks, size = blocks.shape
    if num > FEW:
        return _by_threshold(key, blocks, num=num)

    def best_of_block(block: tuple[Array, Array]) -> tuple[Array, Array]:
        number, log_weight = block
        largest, position = jax.lax.top_k(_perturbed(key, number, log_weight), min(num, size))
        return largest, number * size + position

    largest, index = jax.lax.map(best_of_block, (jnp.arange(num_blocks, dtype=jnp.int32), blocks))
    largest, position = jax.lax.top_k(largest.ravel(), num)
    return jnp.where(largest > -jnp.inf, index.ravel()[position], -1)


@functools.partial(jax.jit, static_argnames=("num", "mesh"))
def _select_in_parts(key: RandomKey, blocks: Float[Array, "M C"], *, num: int, mesh: Mesh) -> Int[Array, " num"]:
    """The draw of devices that each hold some of the blocks."""
    draw = functools.partial(_by_threshold, num=num, axes=_AXES)
    return shard_map_unchecked(draw, mesh, (P(), P(_AXES)), P())(key, blocks)


def _by_threshold(
    key: RandomKey, blocks: Float[Array, "M C"], *, num: int, axes: threshold.Axes = ()
) -> Int[Array, " num"]:
    """The draw by the largest of all perturbed weights, of this device's blocks and the others'."""
    first = (jax.lax.axis_index(axes) if axes else 0) * blocks.shape[0]
    numbers = first + jnp.arange(blocks.shape[0], dtype=jnp.int32)
    bits = jax.lax.map(lambda block: threshold.ordered_bits(_perturbed(key, *block)), (numbers, blocks))
    value, index = threshold.k_largest(bits.ravel(), num, axes=axes)
    return jnp.where(value > threshold.ordered_bits(jnp.float32(-jnp.inf)), index, -1)


def random_policy(num_sessions: int) -> Float[Array, " N"]:
    """The policy that asks about every session with the same probability, as logarithms ``[N]``.

    Raises:
        ValueError: there is no session.
    """
    if num_sessions < 1:
        raise ValueError(f"num_sessions is {num_sessions}; expected at least 1")
    return jnp.full(num_sessions, -math.log(num_sessions), jnp.float32)
