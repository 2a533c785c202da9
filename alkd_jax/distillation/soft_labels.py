"""Soft labels from counting: what a training-free recommender says of an example whose session it has not seen."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from alkd_jax import baselines
from alkd_jax.training.examples import Positions
from alkd_jax.types import Sequences, Sessions


def counted_labels(
    score_function: baselines.Scorer,
    sequences: Sequences,
    num_items: int,
    examples: Positions,
    *,
    k: int = 50,
    folds: int = 10,
) -> tuple[Int[np.ndarray, "E K"], Float[np.ndarray, "E K"]]:
    """Lists the k best items for the input of every example, by counts of other sessions only, with their scores.

    An example of session n is scored by the counts of the sessions m with ``m mod folds ≠ n mod folds``, so that the
    labels say what the method would say of a session it has not seen.

    Args:
        score_function: a method of :mod:`alkd_jax.baselines`.
        sequences: whole training sessions, N of them.
        num_items: V.
        examples: which item of which session is to be predicted.
        k: list length, at least 1.
        folds: 2 to N.

    Returns:
        Items, 0 where fewer remain, and their scores, all at least 0: ``batch.aside``'s "list_items" and "list_gain".

    Raises:
        ValueError: folds is outside ``2..N``, or as in :func:`alkd_jax.baselines.top_k`.
    """
    if not 2 <= folds <= len(sequences):
        raise ValueError(f"folds is {folds}; expected in 2..{len(sequences)}")
    session = np.asarray(examples.session)
    lengths, whole = np.diff(np.asarray(sequences.offsets)), np.asarray(sequences.items)
    items = np.zeros((len(session), k), np.int32)
    gain = np.zeros((len(session), k), np.float32)
    for part in range(folds):
        others = np.arange(len(sequences)) % folds != part
        offsets = np.concatenate([[0], np.cumsum(lengths[others])])
        counts = baselines.count(Sequences(items=whole[np.repeat(others, lengths)], offsets=offsets), num_items)
        rows = np.flatnonzero(session % folds == part)
        if len(rows):
            items[rows], scores = baselines.top_k(score_function, counts, inputs(examples, sequences, rows), k)
            gain[rows] = np.maximum(scores, 0.0)
    return items, gain


def inputs(examples: Positions, sequences: Sequences, rows: Int[np.ndarray, " B"]) -> Sessions:
    """The inputs and targets of these examples as sessions, on the host."""
    batch = examples.take(jnp.asarray(rows), sequences)
    items, mask, target = jax.device_get((batch.items, batch.mask, batch.target))
    return Sessions(items=items, mask=mask, target=target, session_id=np.asarray(rows, np.int32))
