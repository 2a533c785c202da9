"""Soft labels from training-free recommenders: each example is scored by counts that leave its own session out."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from alkd_jax import baselines
from alkd_jax.training.examples import Positions
from alkd_jax.types import Sequences, Sessions


def held_out_labels(
    method: baselines.Method,
    sequences: Sequences,
    num_items: int,
    examples: Positions,
    *,
    k: int = 50,
    folds: int = 10,
) -> tuple[Int[np.ndarray, "E K"], Float[np.ndarray, "E K"]]:
    """Lists the k best items for the input of every example, with their scores, as soft labels.

    An example of session n is scored by the counts of the sessions m with ``m mod folds ≠ n mod folds``. The labels
    are therefore what the method predicts for an unseen session.

    Args:
        method: function of counts that returns a scorer, such as of :func:`alkd_jax.baselines.method`.
        sequences: the training sessions at full length, N of them.
        num_items: V.
        examples: E examples; each names the session and the position of its target.
        k: K, the length of the lists, at least 1.
        folds: number of folds, in ``2..N``.

    Returns:
        ``[E, K]`` items, 0 in short lists, and ``[E, K]`` their scores, at least 0: the lists and gains of
        :class:`alkd_jax.objectives.DistilledSoftmax`.

    Raises:
        ValueError: ``folds`` is outside ``2..N``, or as in :func:`alkd_jax.baselines.top_k`.
    """
    session = np.asarray(examples.session)
    list_items = np.zeros((len(session), k), np.int32)
    list_gain = np.zeros((len(session), k), np.float32)
    for counts, held_out in baselines.held_out_folds(sequences, num_items, folds=folds):
        rows = np.flatnonzero(np.isin(session, held_out))
        if len(rows):
            sessions = _example_sessions(examples, sequences, rows)
            list_items[rows], scores = baselines.top_k(method(counts), counts, sessions, k)
            list_gain[rows] = np.maximum(scores, 0.0)
    return list_items, list_gain


def _example_sessions(examples: Positions, sequences: Sequences, rows: Int[np.ndarray, " B"]) -> Sessions:
    """Returns the inputs and targets of some examples as sessions, on the host."""
    batch = examples.take(jnp.asarray(rows), sequences)
    items, mask, target = jax.device_get((batch.items, batch.mask, batch.target))
    return Sessions(items=items, mask=mask, target=target, session_id=np.asarray(rows, np.int32))
