"""Negative samplers: items are sampled on the device, with exactly known probabilities."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from alkd_jax.checks import check_count, check_span
from alkd_jax.ops.platforms import cpu_or_device

_NUM_WORDS = 2.0**32
"""Number of values of a uniform random word, uint32."""


@flax.struct.dataclass
class Sampler:
    """A distribution over the items ``1..V``; the padding is never sampled.

    Attributes:
        upper: ``[V + 1]`` uint32; a random word w with ``upper[v − 1] < w ≤ upper[v]`` gives item v. The last entry is
            2³² − 1.
        log_prob: ``[V + 1]`` log q_v, exactly the probability of what :meth:`draw` returns; −inf for the padding.
    """

    upper: UInt32[Array, " V"]
    log_prob: Float[Array, " V"]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Int[Array, "..."]:
        """Samples items independently of each other.

        Args:
            key: a JAX key; consumed.
            shape: shape of the result.

        Returns:
            Items in ``1..V``, int32.
        """
        return jnp.maximum(1, _search(self.upper, jax.random.bits(key, shape, jnp.uint32))).astype(jnp.int32)

    def on_rows(self, ids: Int[Array, " R"]) -> "Sampler":
        """Returns the probabilities of some items, in their order; the result cannot draw.

        Args:
            ids: items; a number beyond the catalogue stands for the last item.
        """
        return jax.tree.map(lambda leaf: leaf.at[ids].get(mode="clip"), self)


@jax.jit
def _search(upper: UInt32[Array, " V"], words: UInt32[Array, "..."]) -> Int[Array, "..."]:
    """Finds the first entry that is not below each word; on a GPU or TPU without a loop, which launches each round.

    The search goes over the whole array: a slice without its first entry would be copied at every call.
    """
    unrolled = functools.partial(jnp.searchsorted, method="scan_unrolled")
    return cpu_or_device(jnp.searchsorted, unrolled)(upper, words)


def uniform(num_items: int) -> Sampler:
    """Returns a sampler that gives every item the same probability.

    Args:
        num_items: V, at least 1.

    Raises:
        ValueError: there are no items.
    """
    check_count(1, num_items=num_items)
    return _quantized(np.ones(num_items))


def by_popularity(
    target: Int[np.ndarray, " N"], num_items: int, *, exponent: float = 0.75, prior: float = 1.0
) -> Sampler:
    """Returns a sampler with probabilities ``q_v ∝ (c + count_v)^α``.

    Args:
        target: the items to count, in ``1..V``.
        num_items: V, at least 1.
        exponent: α; 0 is uniform, 1 is proportional to the count.
        prior: c, not negative; with 0 an item that is never a target has one of 2³² random words.

    Raises:
        ValueError: a target is out of range, the exponent is not finite, the prior is negative, or there are no items.
    """
    if not np.isfinite(exponent):
        raise ValueError(f"exponent is {exponent}; expected a finite number")
    if not 0 <= prior < np.inf or (prior == 0 and exponent < 0):
        raise ValueError(f"prior is {prior}; expected at least 0, and above 0 where the exponent is negative")
    base = prior + _counts(target, num_items)
    # Of the most probable item the power is 1, so that no exponent makes it overflow.
    return _quantized((base / (base.max() if exponent > 0 else base.min())) ** exponent)


def log_frequency(target: Int[np.ndarray, " N"], num_items: int) -> Float[np.ndarray, " V"]:
    """Computes the log q of in-batch negatives: the log of how often each item is a target, up to a constant.

    ``log q_v = log((count_v + ½) / Σ (count + ½))``; the ½ keeps log q finite for items that are never a target.

    Args:
        target: items in ``1..V``.
        num_items: V.

    Returns:
        ``[V + 1]`` float32, −inf for the padding.

    Raises:
        ValueError: a target is out of range, or there are no items.
    """
    counts = np.concatenate([[0.0], _counts(target, num_items) + 0.5])
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum()).astype(np.float32)


def _counts(target: Int[np.ndarray, " N"], num_items: int) -> Float[np.ndarray, " V"]:
    check_count(1, num_items=num_items)
    check_span("targets", target, 1, num_items)
    return np.bincount(np.asarray(target), minlength=num_items + 1)[1:].astype(np.float64)


def _quantized(weight: Float[np.ndarray, " V"]) -> Sampler:
    """Assigns the 2³² random words to the items: each gets at least one, in all as close to its weight as possible."""
    num_items = len(weight)
    cumulative = np.cumsum(weight / weight.sum())
    # One word is reserved for each item, so that none is impossible; the others are assigned by weight.
    words = np.floor(cumulative / cumulative[-1] * (_NUM_WORDS - num_items)) + np.arange(1, num_items + 1)
    upper = np.concatenate([[0], words - 1]).astype(np.uint32)
    prob = np.diff(np.concatenate([[0.0], words])) / _NUM_WORDS
    with np.errstate(divide="ignore"):
        log_prob = np.log(np.concatenate([[0.0], prob])).astype(np.float32)
    return Sampler(jnp.asarray(upper), jnp.asarray(log_prob))
