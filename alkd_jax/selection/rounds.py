"""Selection in rounds: what the answers of one round taught decides what the next one asks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.maxmin.game import FloatArray
from alkd_jax.selection.sampling import select


def round_sizes(num: int, rounds: int) -> tuple[int, ...]:
    """Splits a budget evenly into rounds, the first ones larger by one where it does not divide.

    Raises:
        ValueError: there are more rounds than sessions, or a number is below 1.

    Example:
        >>> alkd.selection.round_sizes(10, 3)
        (4, 3, 3)
    """
    check_count(1, num=num, rounds=rounds)
    if rounds > num:
        raise ValueError(f"rounds is {rounds}; expected 1 to {num}, the number of sessions to select")
    size, larger = divmod(num, rounds)
    return (size + 1,) * larger + (size,) * (rounds - larger)


def select_in_rounds(
    key: jax.Array,
    policy_after: Callable[[Int[np.ndarray, " M"]], FloatArray],
    *,
    num: int = 500,
    rounds: int = 4,
) -> Int[np.ndarray, " num"]:
    """Samples ``num / rounds`` sessions from a policy, asks for the policy after these, and repeats.

    Args:
        key: a JAX key; the function consumes it.
        policy_after: function of the indices selected so far, in their order, at first none, that returns ``[N]`` log
            p; it may distill the answers for these sessions and estimate the difficulty of the others again. What is
            selected is never drawn again, whatever its p.
        num: number of sessions to select.
        rounds: number of rounds; one is :func:`alkd_jax.selection.select`.

    Returns:
        ``[num]`` distinct indices in the order of selection.

    Raises:
        ValueError: there are more rounds than sessions, or a policy has too few sessions of positive probability.

    Reference:
        Settles, Active learning literature survey, 2009, pool-based sampling with retraining.
    """
    chosen = np.zeros(0, np.int32)
    for number, size in enumerate(round_sizes(num, rounds)):
        log_policy: Float[Array, " N"] = jnp.asarray(policy_after(chosen), jnp.float32).at[chosen].set(-jnp.inf)
        drawn = select(key if rounds == 1 else jax.random.fold_in(key, number), log_policy, num=size)
        chosen = np.concatenate([chosen, np.asarray(drawn)])
    return chosen
