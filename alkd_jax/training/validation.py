"""Recall on the validation sessions, which decides when training stops and which parameters are the best."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax import scoring
from alkd_jax.evaluation import metrics
from alkd_jax.types import Sessions


def validation_recall(
    encode: Callable[[Array, Array], Float[Array, "B *L D"]],
    table: Float[Array, "V D"],
    validation: Sessions,
    k: int,
    batch_size: int,
) -> Float[Array, ""]:
    """Computes recall at k, in batches of sessions and chunks of items.

    Args:
        encode: ``encode(items, mask)`` returns the vectors of sessions.
        table: the output table Y; row 0 is the padding.
        validation: the sessions.
        k: list length.
        batch_size: sessions whose scores are in memory at a time, at most the number of sessions.
    """
    num_sessions = len(validation)
    num_batches = -(-num_sessions // batch_size)
    # The last batch starts early enough to be full; sessions of the batch before get weight 0 in it.
    starts = jnp.minimum(jnp.arange(num_batches) * batch_size, num_sessions - batch_size)

    def count_hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
        number, start = batch
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
        ranks = scoring.full_catalogue_rank(encode(items, mask), table, target, exclude=items)
        is_new = start + jnp.arange(batch_size) >= number * batch_size
        return (metrics.recall(ranks, k) * is_new).sum()

    return jax.lax.map(count_hits, (jnp.arange(num_batches), starts)).sum() / num_sessions
