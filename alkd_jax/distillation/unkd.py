"""unKD, unbiased distillation: the student learns the teacher's order among items of similar popularity only."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import losses, training
from alkd_jax.checks import check_at_least, check_count
from alkd_jax.distillation.method import check_positive, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.popularity_strata import allocate_pairs, item_counts, popularity_groups
from alkd_jax.distillation.teacher import (
    TeacherEmbeddings,
    TeacherModel,
    all_session_items,
    encode_teacher,
    teacher_lists,
)
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import BoundLoss
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.training.examples import sequences_of
from alkd_jax.types import PAD, Batch, Sequences, Sessions

MU = 20.0
"""Ranks are sampled with probability ∝ exp(−r / 20)."""
DEPTH = 400
"""Length of a group's list. Rank 400 has the weight 2e-9 relative to rank 0, below the resolution of a uniform float32
sample; the authors keep 1,000."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        weight: λ, at least 0.
        num_groups: G, the number of popularity groups, at least 1.
        num_pairs: M, the number of pairs sampled for a session at each step, over all groups.
        gamma: γ of :func:`alkd_jax.distillation.popularity_strata.allocate_pairs`.
        mu: μ of :func:`sample_rank_pairs`, positive.
        depth: the length of each group's list, at least 2; the device holds ``N · G · depth`` integers.
    """

    weight: float = 1.0
    num_groups: int = 4
    num_pairs: int = 30
    gamma: float = 0.0
    mu: float = MU
    depth: int = DEPTH

    def __post_init__(self) -> None:
        check_weight(weight=self.weight)
        check_count(1, num_groups=self.num_groups, num_pairs=self.num_pairs)
        check_count(2, depth=self.depth)
        check_at_least(0, gamma=self.gamma)
        check_positive(mu=self.mu)


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
    check_count(2, depth=depth)
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


@flax.struct.dataclass
class PopularityPairs(BoundLoss):
    """:func:`pair_loss` over pairs of items of similar popularity, which are sampled anew at every step.

    Attributes:
        lists: ``[N, G, K]`` the teacher's list of each group for each training session, see :func:`group_lists`.
        length: ``[N, G]`` the number of items in each list.
        pairs_per_group: the number of pairs from each group.
        mu: μ of :func:`sample_rank_pairs`.
    """

    lists: Int[Array, "N G K"]
    length: Int[Array, "N G"]
    pairs_per_group: tuple[int, ...] = flax.struct.field(pytree_node=False)
    mu: float = flax.struct.field(pytree_node=False, default=MU)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        lists, length = self.lists[batch.session], self.length[batch.session]
        better, worse, where = sample_pairs(distillation_key(key), lists, length, self.pairs_per_group, mu=self.mu)
        table, vectors = self.item_embeddings(params, key), self.encode(params, batch, key)
        better_rows, worse_rows = (at_least_float32(embedding_lookup(table, items)) for items in (better, worse))
        margin = jnp.einsum("bd,bpd->bp", vectors, better_rows - worse_rows)
        return pair_loss(margin, where, weight=batch.weight)


def distill(
    key: jax.Array,
    model: Encoder,
    teacher: TeacherModel,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    sequences: Sequences | None = None,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student that also learns the teacher's order among items of similar popularity.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`. Popularity is counted in
    ``sequences``, and the teacher's lists leave out their items.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
    groups = popularity_groups(counts, num_groups=options.num_groups)
    session_items = all_session_items(train, sequences)
    lists, length = group_lists(encode_teacher(teacher, train), groups, session_items, depth=options.depth)
    pairs_per_group = allocate_pairs(counts, groups, num_pairs=options.num_pairs, gamma=options.gamma)
    pairs = PopularityPairs(model, jnp.asarray(lists), jnp.asarray(length), pairs_per_group, options.mu)
    return fit_with_distillation(key, model, train, validation, pairs, options.weight, **fit_options)
