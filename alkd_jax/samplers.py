"""Negative samplers: items drawn on the device with exactly known chances."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

_STEPS = 2.0**32


@flax.struct.dataclass
class Sampler:
    """A distribution over the items ``1..V``; the padding is never drawn.

    Attributes:
        upper: ``[V + 1]`` uint32, item v is drawn by words w, ``upper[v − 1] < w ≤ upper[v]``; the last is 2³² − 1.
        log_chance: ``[V + 1]`` log q_v, exact for what is drawn; −inf for the padding.
    """

    upper: UInt32[Array, " V"]
    log_prob: Float[Array, " V"]

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> Int[Array, "..."]:
        """Draws items independently.

        Args:
            key: consumed.
            shape: of what is returned.

        Returns:
            int32 items in ``1..V``.
        """
        words = jax.random.bits(key, shape, jnp.uint32)
        # Of the whole array rather than without its first number, which would take a copy at every draw.
        return jnp.maximum(1, jnp.searchsorted(self.upper, words)).astype(jnp.int32)


def uniform(num_items: int) -> Sampler:
    """Every item with the same chance.

    Args:
        num_items: V, at least 1.
    """
    return _quantised(np.ones(num_items))


def by_popularity(target: Int[np.ndarray, " N"], num_items: int, *, exponent: float = 0.75) -> Sampler:
    """Items as often as they are targets, tempered: ``q_v ∝ (1 + count_v)^α``.

    Args:
        target: items in ``1..V``, any number of times each.
        num_items: V.
        exponent: α; 0 is uniform, 1 as often as seen.

    Raises:
        ValueError: a target is out of range, or the exponent is not finite.
    """
    if not np.isfinite(exponent):
        raise ValueError(f"exponent is {exponent}; expected a finite number")
    return _quantised((1.0 + _counts(target, num_items)) ** exponent)


def log_frequency(target: Int[np.ndarray, " N"], num_items: int) -> Float[np.ndarray, " V"]:
    """Log of how often each item is a target, up to a constant: the log q of negatives taken from the batch.

    ``log q_v = log((count_v + ½) / Σ (count + ½))``; the half keeps items that are never a target finite.

    Args:
        target: items in ``1..V``.
        num_items: V.

    Returns:
        ``[V + 1]`` float32, −inf for the padding.
    """
    counts = np.concatenate([[0.0], _counts(target, num_items) + 0.5])
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum()).astype(np.float32)


def _counts(target: Int[np.ndarray, " N"], num_items: int) -> Float[np.ndarray, " V"]:
    target = np.asarray(target)
    if len(target) and not 1 <= target.min() <= target.max() <= num_items:
        raise ValueError(f"targets span {target.min()}..{target.max()}; expected 1..{num_items}")
    return np.bincount(target, minlength=num_items + 1)[1:].astype(np.float64)


def _quantised(weight: Float[np.ndarray, " V"]) -> Sampler:
    """Gives every item a whole number of the 2³² words, at least one, as near to its share as that allows."""
    num_items = len(weight)
    if num_items < 1:
        raise ValueError(f"num_items is {num_items}; expected at least 1")
    cumulative = np.cumsum(weight / weight.sum())
    # One word each is set aside, so that no item is impossible; the rest is shared out by weight.
    words = np.floor(cumulative / cumulative[-1] * (_STEPS - num_items)) + np.arange(1, num_items + 1)
    upper = np.concatenate([[0], words - 1]).astype(np.uint32)
    chance = np.diff(np.concatenate([[0.0], words])) / _STEPS
    with np.errstate(divide="ignore"):
        log_chance = np.log(np.concatenate([[0.0], chance])).astype(np.float32)
    return Sampler(jnp.asarray(upper), jnp.asarray(log_chance))
