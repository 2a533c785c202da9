"""unKD, unbiased distillation: the student learns the teacher's order among items of similar popularity only."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import losses, training
from alkd_jax.checks import check_at_least
from alkd_jax.distillation.inputs import (
    TeacherEmbeddings,
    all_session_items,
    distillation_key,
    encode_teacher,
    fit_with_distillation,
    teacher_lists,
)
from alkd_jax.distillation.popularity_strata import allocate_pairs, item_counts, popularity_groups
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, encode
from alkd_jax.ops import lookup
from alkd_jax.training.examples import sequences_of
from alkd_jax.types import PAD, Batch, Sequences, Sessions

MU = 20.0
"""Ranks are sampled with probability ∝ exp(−r / 20)."""
DEPTH = 400
"""Length of a group's list. Rank 400 has the weight 2e-9 relative to rank 0, below the resolution of a uniform float32
sample; the authors keep 1,000."""


def group_lists(
    teacher: TeacherEmbeddings, groups: Int[np.ndarray, " V1"], exclude: Int[np.ndarray, "N L"], *, depth: int = DEPTH
) -> tuple[Int[np.ndarray, "N G K"], Int[np.ndarray, "N G"]]:
    """Ranks the items of every group by the teacher's scores, for every training session.

    Args:
        teacher: its embeddings.
        groups: ``[V1]`` from :func:`alkd_jax.distillation.popularity_strata.popularity_groups`.
        exclude: the items of each session, target included, which its lists leave out; 0 fills shorter rows.
        depth: K, the length of the lists, at least 2.

    Returns:
        ``[N, G, K]`` items, best first, 0 in short lists; and ``[N, G]`` the number of items in each list.

    Raises:
        ValueError: ``depth`` is below 2.
    """
    check_at_least(2, depth=depth)
    lists = np.zeros((len(exclude), int(groups.max()) + 1, depth), np.int32)
    for group in range(lists.shape[1]):
        # Row 0 of a table is padding for top_k. Items of other groups are mapped to it, which excludes nothing.
        members = np.concatenate([[PAD], np.flatnonzero(groups == group)])
        row_of_item = np.zeros(len(groups), np.int32)
        row_of_item[members] = np.arange(len(members))
        k = min(depth, len(members) - 1)
        rows = teacher_lists(teacher, k, row_of_item[exclude], table=teacher.items[members])
        lists[:, group, :k] = members[rows]
    return lists, (lists != PAD).sum(-1).astype(np.int32)


def sample_rank_pairs(
    key: jax.Array, length: Int[Array, "*batch"], *, mu: float = MU
) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
    """Samples two different ranks: ``P(i, j) ∝ p_i p_j``, i ≠ j, with ``p_r ∝ exp(−r / μ)``, r = 1..R.

    This is the distribution of sampling both from p until they differ, without rejections: the first rank has
    probability ∝ p_i (1 − p_i), the second comes from p without i. Both are found by bisection of their distribution
    functions.

    Args:
        key: a JAX key; the function consumes it.
        length: R, at least 2.
        mu: μ, positive.

    Returns:
        The better rank and the worse one, both counted from 0.
    """
    decay = jnp.exp(-1.0 / mu)
    num_halvings = 20  # enough for lists of a million
    total = 1.0 - decay**length
    first_uniform, second_uniform = jax.random.uniform(key, (2, *length.shape))

    def probability(rank: Array) -> Array:
        return decay ** (rank - 1) * (1.0 - decay) / total

    def cumulative(rank: Array) -> Array:
        return (1.0 - decay**rank) / total

    def cumulative_squares(rank: Array) -> Array:
        return ((1.0 - decay) / total) ** 2 * (1.0 - decay ** (2 * rank)) / (1.0 - decay**2)

    def first_above(function, value: Array, last: Array) -> Array:  # type: ignore[no-untyped-def]
        """Returns the lowest rank in 1..last at which ``function`` exceeds ``value``, or the last rank."""

        def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) // 2
            exceeds = function(middle) > value
            return jnp.where(exceeds, low, middle + 1), jnp.where(exceeds, middle, high)

        return jax.lax.fori_loop(0, num_halvings, halve, (jnp.ones_like(last), last))[1]

    first = first_above(
        lambda rank: cumulative(rank) - cumulative_squares(rank),
        first_uniform * (1.0 - cumulative_squares(length)),
        length,
    )
    first_probability = probability(first)

    def cumulative_without_first(position: Array) -> Array:
        is_after = position >= first
        return cumulative(position + is_after) - jnp.where(is_after, first_probability, 0.0)

    position = first_above(cumulative_without_first, second_uniform * (1.0 - first_probability), length - 1)
    second = position + (position >= first)
    return jnp.minimum(first, second) - 1, jnp.maximum(first, second) - 1


def sample_pairs(
    key: jax.Array,
    lists: Int[Array, "B G K"],
    length: Int[Array, "B G"],
    pairs_per_group: tuple[int, ...],
    *,
    mu: float = MU,
) -> tuple[Int[Array, "B P"], Int[Array, "B P"], Bool[Array, "B P"]]:
    """Samples pairs of items for every session: ``pairs_per_group[g]`` from group g, P in all.

    Args:
        key: a JAX key; the function consumes it.
        lists: the teacher's list of each group, see :func:`group_lists`.
        length: the number of items in each list.
        pairs_per_group: see :func:`alkd_jax.distillation.popularity_strata.allocate_pairs`.
        mu: μ of :func:`sample_rank_pairs`.

    Returns:
        The item that the teacher ranks higher, the one that it ranks lower, and which pairs are valid: those of a
        group with fewer than two items are not.
    """
    group = np.repeat(np.arange(len(pairs_per_group)), pairs_per_group)
    group_length = length[:, group]
    better, worse = sample_rank_pairs(key, jnp.maximum(group_length, 2), mu=mu)
    rows = jnp.arange(lists.shape[0])[:, None]
    return lists[rows, group[None], better], lists[rows, group[None], worse], group_length >= 2


def pair_loss(
    margin: Float[Array, "B P"], where: Bool[Array, "B P"], *, weight: Float[Array, " B"] | None = None
) -> Float[Array, ""]:
    """``mean_b mean_p −log σ(s_b,i⁺ − s_b,i⁻)``; of the teacher's scores, only their order matters.

    Args:
        margin: the student's score of the item that the teacher ranks higher, minus that of the other.
        where: True for valid pairs.
        weight: weights of the rows in the mean; default 1.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    zeros = jnp.zeros(margin.shape[0])
    return losses.sampled_bpr(zeros, -margin, weight=weight, where=where.astype(margin.dtype))


@functools.lru_cache(maxsize=64)
def pair_objective(model: Encoder, pairs_per_group: tuple[int, ...], *, mu: float = MU) -> Loss:
    """:func:`pair_loss` over pairs that are sampled anew at every step.

    ``batch.loss_inputs["distillation"]`` holds "lists" and "length", a row for each training session; see
    :func:`group_lists`.

    Args:
        model: the student's backbone.
        pairs_per_group: the number of pairs from each group.
        mu: μ of :func:`sample_rank_pairs`.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        distillation_inputs = batch.loss_inputs["distillation"]
        lists, length = distillation_inputs["lists"][batch.session], distillation_inputs["length"][batch.session]
        better, worse, where = sample_pairs(distillation_key(key), lists, length, pairs_per_group, mu=mu)
        table = model.apply(params, method="item_embeddings")
        vectors = encode(model, params, batch, key)
        margin = jnp.einsum(
            "bd,bpd->bp", vectors, lookup.embedding_lookup(table, better) - lookup.embedding_lookup(table, worse)
        )
        return pair_loss(margin, where, weight=batch.weight)

    return loss


def distill(
    key: jax.Array,
    model: Encoder,
    teacher_model: Encoder,
    teacher_params: Params,
    train: Sessions,
    validation: Sessions,
    *,
    weight: float = 1.0,
    num_groups: int = 4,
    num_pairs: int = 30,
    gamma: float = 0.0,
    mu: float = MU,
    depth: int = DEPTH,
    sequences: Sequences | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student that also learns the teacher's order among items of similar popularity.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's backbone.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        weight: λ, at least 0.
        num_groups: G, the number of popularity groups.
        num_pairs: M, the number of pairs sampled for a session at each step, over all groups.
        gamma: γ of :func:`alkd_jax.distillation.popularity_strata.allocate_pairs`.
        mu: μ of :func:`sample_rank_pairs`.
        depth: the length of each group's list; the device holds ``N · G · depth`` integers.
        sequences: the training sessions at full length, from which popularity is counted and whose items the lists
            leave out; by default the items that ``train`` holds.
        **options: ``loss`` and ``loss_inputs`` of the student's own loss; further options of
            :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: an option is out of its range, or as in :func:`alkd_jax.training.fit`.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
    groups = popularity_groups(counts, num_groups=num_groups)
    teacher = encode_teacher(teacher_model, teacher_params, train)
    lists, length = group_lists(teacher, groups, all_session_items(train, sequences), depth=depth)
    pairs_per_group = allocate_pairs(counts, groups, num_pairs=num_pairs, gamma=gamma)
    distillation_loss = pair_objective(model, pairs_per_group, mu=mu)
    distillation_inputs = {"lists": lists, "length": length, "weight": weight}
    return fit_with_distillation(key, model, train, validation, distillation_loss, distillation_inputs, **options)
