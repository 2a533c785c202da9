"""How uncertain a model is of the next item of each session, by its scores of candidates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.checks import check_where
from alkd_jax.maxmin.game import FloatArray

UNCERTAINTIES = ("entropy", "margin")
"""The measures of :func:`uncertainty`."""


def entropy(scores: FloatArray) -> Float[Array, " N"]:
    """The entropy of the softmax over each session's candidates, as a share of the largest one.

    ``u_s = −Σ_i p_i log p_i / log C_s``, with ``p = softmax(scores_s)`` over the C_s candidates of session s

    Args:
        scores: ``[N, C]`` scores of the candidates; −inf where a session has fewer than C.

    Returns:
        ``[N]`` in [0, 1]; 1 where all candidates have the same score, 0 for a single candidate.

    Raises:
        ValueError: a score is NaN or +inf, or a session has no candidate.

    Reference:
        Lewis and Gale, A sequential algorithm for training text classifiers, SIGIR 1994; Settles, Active learning
        literature survey, 2009.

    Example:
        >>> [round(float(u), 3) for u in alkd.selection.entropy(jnp.array([[1.0, 1.0], [9.0, 0.0]]))]
        [1.0, 0.002]
    """
    is_candidate = _check_scores(scores)
    log_prob = jax.nn.log_softmax(jnp.asarray(scores, jnp.float32), axis=1)
    nats = -jnp.where(is_candidate, jnp.exp(log_prob) * log_prob, 0.0).sum(1)
    num_candidates = is_candidate.sum(1)
    share = nats / jnp.log(jnp.maximum(num_candidates, 2).astype(jnp.float32))
    return jnp.where(num_candidates > 1, jnp.clip(share, 0.0, 1.0), 0.0)


def margin(scores: FloatArray) -> Float[Array, " N"]:
    """One minus the probability of the best candidate above that of the second best.

    ``u_s = 1 − (p_(1) − p_(2))``, with ``p = softmax(scores_s)``

    Args:
        scores: ``[N, C]`` scores of the candidates; −inf where a session has fewer than C.

    Returns:
        ``[N]`` in [0, 1]; 1 where the two best are tied, 0 for a single candidate.

    Raises:
        ValueError: a score is NaN or +inf, or a session has no candidate.

    Reference:
        Scheffer et al., Active hidden Markov models for information extraction, IDA 2001.
    """
    is_candidate = _check_scores(scores)
    prob = jax.nn.softmax(jnp.asarray(scores, jnp.float32), axis=1)
    if prob.shape[1] == 1:
        return jnp.zeros(prob.shape[0])
    best = jax.lax.top_k(prob, 2)[0]
    return jnp.where(is_candidate.sum(1) > 1, 1.0 - (best[:, 0] - best[:, 1]), 0.0)


def _check_scores(scores: FloatArray) -> Bool[Array, "N C"]:
    """Refuses what are no scores of candidates, and returns which places hold a candidate."""
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"shape of scores is {list(scores.shape)}; expected [N, C] with C ≥ 1")
    check_where(scores < jnp.inf, "scores", scores, "a number, or −inf where there is no candidate")
    is_candidate = jnp.asarray(scores) > -jnp.inf
    check_where(is_candidate.any(1), "number of candidates", is_candidate.sum(1), "at least 1 in each session")
    return is_candidate
