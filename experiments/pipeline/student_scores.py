"""The student's vectors of training sessions and its scores of their candidates, from which active learning selects."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import scoring
from alkd_jax.models import Encoder, Params

if TYPE_CHECKING:
    from .run import RunContext

NUM_CANDIDATES = 50
"""The student's best items, over which its softmax is taken."""
_BATCH = 2**12


@functools.partial(jax.jit, static_argnums=0)
def _score(
    model: Encoder, params: Params, items: Int[Array, "B L"], mask: Bool[Array, "B L"]
) -> tuple[Float[Array, "B D"], Float[Array, "B C"], Int[Array, "B C"]]:
    vectors = model.apply(params, items, mask)
    table = model.apply(params, method="item_embeddings")
    return vectors, *scoring.top_k(vectors, table, min(NUM_CANDIDATES, model.num_items), exclude=items)


def student_scores(
    run: "RunContext", rows: Int[np.ndarray, " M"]
) -> tuple[Float[np.ndarray, "M D"], Float[np.ndarray, "M C"], Int[np.ndarray, "M C"]]:
    """Scores the candidates of some training sessions with the first seed's student, a batch at a time.

    Returns:
        The vectors of the sessions, and scores and items of their candidates, best first; −inf and −1 fill short lists.
    """
    model, params = run.model("student"), run.first_params("student")
    sessions = run.split("train").take(rows)
    size = min(_BATCH, len(rows))
    parts: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(rows), size):
        # The last batch overlaps the one before it, so that all batches have the same size.
        start = min(first, len(rows) - size)
        batch = jnp.asarray(sessions.items[start : start + size]), jnp.asarray(sessions.mask[start : start + size])
        parts.append(tuple(np.asarray(part)[first - start :] for part in _score(model, params, *batch)))
    vectors, scores, items = (np.concatenate(column) for column in zip(*parts, strict=True))
    return vectors, scores, items
