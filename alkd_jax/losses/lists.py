"""Losses of a teacher's list, which give the student its order: by pairs, by softmax, by ranks, by permutations.

The columns of all of them are the places of the list, the best item first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.precision import at_least_float32

_NO_ITEM = -1e30
"""The score of a place without an item; a finite number, so that a row without items has a gradient of 0, not NaN."""


def ranknet(
    scores: Float[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
    top_heavy: bool = False,
) -> Float[Array, ""]:
    """RankNet's loss of the pairs of a list.

    ``L = mean_b mean_{i<j} δ_ij softplus(s_bj − s_bi)``, with ``δ_ij = 1``, or with LambdaRank's weights
    ``δ_ij = |1/log₂(1 + i) − 1/log₂(1 + j)|``. It depends on differences of scores alone.

    Args:
        scores: the student's scores s of the listed items, the teacher's best first.
        where: True at places that hold an item; pairs with another place are left out.
        weight: non-negative weight of each row; a row without a pair is excluded.
        top_heavy: whether pairs are weighted by how much NDCG changes where they are swapped.

    Reference:
        Burges et al., ICML 2005; Burges, From RankNet to LambdaRank to LambdaMART, 2010; Sun et al., Is ChatGPT good at
        search?, EMNLP 2023, permutation distillation.

    Example:
        >>> bool(alkd.losses.ranknet(jnp.array([[2.0, 0.0]])) < alkd.losses.ranknet(jnp.array([[0.0, 2.0]])))
        True
    """
    scores, where = _places(scores, where)
    length = scores.shape[1]
    is_pair = where[:, :, None] & where[:, None] & jnp.triu(jnp.ones((length, length), bool), 1)[None]
    margin = jnp.where(is_pair, scores[:, None] - scores[:, :, None], 0.0)
    losses = jax.nn.softplus(margin)
    if top_heavy:
        discount = 1 / jnp.log2(2.0 + jnp.arange(length))
        losses *= jnp.abs(discount[:, None] - discount[None])[None]
    num_pairs = is_pair.sum((1, 2))
    means = jnp.where(is_pair, losses, 0.0).sum((1, 2)) / jnp.maximum(num_pairs, 1)
    return weighted_mean(means, _weight_of(num_pairs > 0, weight, scores))


def listnet(
    scores: Float[Array, "B K"],
    *,
    temperature: float = 1.0,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Divergence of the student's softmax over a list from one that falls with the place.

    ``L = mean_b KL(p_b ‖ q_b)``, ``p_bi ∝ exp(−i/T)``, ``q_b = softmax(s_b)``

    For a teacher's own weights of the items see :func:`alkd_jax.losses.listwise_softmax`, which differs from it by the
    entropy of p.

    Args:
        scores: the student's scores s of the listed items, the teacher's best first.
        temperature: T, in places: the weight falls by a factor e in so many places.
        where: True at places that hold an item.
        weight: non-negative weight of each row; a row without items is excluded.

    Raises:
        ValueError: the temperature is not positive.

    Reference:
        Cao et al., Learning to rank: from pairwise approach to listwise approach, ICML 2007, the top-one form.
    """
    _check_temperature(temperature)
    scores, where = _places(scores, where)
    # A place without an item does not count in the places of those after it.
    place = jnp.cumsum(where, axis=1).astype(scores.dtype)
    label = jax.nn.log_softmax(jnp.where(where, -place / temperature, _NO_ITEM), axis=1)
    student = jax.nn.log_softmax(jnp.where(where, scores, _NO_ITEM), axis=1)
    divergence = jnp.where(where, jnp.exp(label) * (label - student), 0.0).sum(1)
    return weighted_mean(divergence, _weight_of(where.any(1), weight, scores))


def approx_rank_mse(
    scores: Float[Array, "B K"],
    *,
    temperature: float = 1.0,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Squared difference of smooth ranks from the teacher's, the first ones weighing most.

    ``r̃_i = 1 + Σ_{j≠i} σ((s_j − s_i)/τ)``, ``L = mean_b mean_i (r̃_i − i)² / log₂(1 + i)``. As τ tends to 0, r̃ tends to
    the ranks within the list, and the loss of the teacher's order to 0.

    Args:
        scores: the student's scores s of the listed items, the teacher's best first.
        temperature: τ, in units of scores.
        where: True at places that hold an item.
        weight: non-negative weight of each row; a row without items is excluded.

    Raises:
        ValueError: the temperature is not positive.

    Reference:
        Schlatt et al., Rank-DistiLLM, ECIR 2025.
    """
    _check_temperature(temperature)
    scores, where = _places(scores, where)
    is_other = where[:, None] & ~jnp.eye(scores.shape[1], dtype=bool)[None]
    above = jax.nn.sigmoid((scores[:, None] - scores[:, :, None]) / temperature)
    rank = 1 + jnp.where(is_other, above, 0.0).sum(2)
    place = jnp.cumsum(where, axis=1).astype(scores.dtype)
    losses = jnp.where(where, (rank - place) ** 2 / jnp.log2(1 + jnp.maximum(place, 1)), 0.0)
    num_items = where.sum(1)
    return weighted_mean(losses.sum(1) / jnp.maximum(num_items, 1), _weight_of(num_items > 0, weight, scores))


def plackett_luce(
    scores: Float[Array, "B K"],
    *,
    log_rest: Float[Array, " B"] | None = None,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Negative log-likelihood of a list as one draw without replacement after another ("ListMLE").

    ``L = mean_b −Σ_i [s_i − log(Σ_{j≥i} exp(s_j) + R_b)]``, where R is 0 for an order of the listed items alone, or
    ``Σ exp(s)`` over all items that are not listed: the list is then the beginning of an order of the catalogue.

    Args:
        scores: the student's scores s of the listed items, the teacher's best first.
        log_rest: log R, such as :func:`alkd_jax.ops.log_partition.log_rest`; None for R = 0.
        where: True at places that hold an item.
        weight: non-negative weight of each row; a row without items is excluded.

    Reference:
        Xia et al., Listwise approach to learning to rank, ICML 2008; Plackett, The analysis of permutations, 1975.

    Example:
        >>> round(float(alkd.losses.plackett_luce(jnp.zeros((1, 3)))), 4)  # log 3!
        1.7918
    """
    scores, where = _places(scores, where)
    masked = jnp.where(where, scores, _NO_ITEM)
    log_total = jax.lax.associative_scan(jnp.logaddexp, masked, reverse=True, axis=1)
    if log_rest is not None:
        log_total = jnp.logaddexp(log_total, log_rest[:, None])
    losses = jnp.where(where, log_total - masked, 0.0).sum(1)
    return weighted_mean(losses, _weight_of(where.any(1), weight, scores))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a positive number")


def _places(
    scores: Float[Array, "B K"], where: Bool[Array, "B K"] | None
) -> tuple[Float[Array, "B K"], Bool[Array, "B K"]]:
    """Returns scores of at least float32, 0 where there is no item, and which places hold one."""
    scores = at_least_float32(scores)
    where = jnp.ones(scores.shape, bool) if where is None else where
    return jnp.where(where, scores, 0.0), where


def _weight_of(
    counts: Bool[Array, " B"], weight: Float[Array, " B"] | None, scores: Float[Array, "B K"]
) -> Float[Array, " B"]:
    """Returns the weights of the rows, 0 for those that do not count."""
    kept = counts.astype(scores.dtype)
    return kept if weight is None else kept * weight
