"""Unbiased distillation: the student follows the teacher's order only among items of like popularity."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import losses, training
from alkd_jax.distillation.inputs import (
    Teacher,
    fit_with_distillation,
    noise_key,
    teacher_vectors,
    top_lists,
    whole_sessions,
)
from alkd_jax.distillation.popularity_strata import item_counts, pair_budget, popularity_groups
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, encode
from alkd_jax.ops import lookup
from alkd_jax.training.examples import sequences_of
from alkd_jax.types import PAD, Batch, Sequences, Sessions

MU = 20.0
"""Rank r is drawn with chance ∝ exp(−r / 20)."""
DEPTH = 400
"""Length of the lists. Rank 400 has chance 2e-9, less than a float32 draw can tell from 0; the authors keep 1,000."""


def group_lists(
    teacher: Teacher, groups: Int[np.ndarray, " V"], exclude: Int[np.ndarray, "N L"], *, depth: int = DEPTH
) -> tuple[Int[np.ndarray, "N G K"], Int[np.ndarray, "N G"]]:
    """The teacher's order of every group, for every training session.

    Args:
        teacher: its vectors.
        groups: from :func:`alkd_jax.distillation.popularity_strata.popularity_groups`.
        exclude: each session's own items, target included; 0 where there are fewer.
        depth: K, how much of a group's order to keep, at least 2.

    Returns:
        Items, best first, 0 after the last; and how many there are.

    Raises:
        ValueError: depth is below 2.
    """
    if depth < 2:
        raise ValueError(f"depth is {depth}; expected at least 2, to draw pairs")
    lists = np.zeros((len(exclude), int(groups.max()) + 1, depth), np.int32)
    for group in range(lists.shape[1]):
        # Row 0 of a table is padding to top_k, and so it is here; items of other groups are nobody to leave out.
        members = np.concatenate([[PAD], np.flatnonzero(groups == group)])
        place = np.zeros(len(groups), np.int32)
        place[members] = np.arange(len(members))
        k = min(depth, len(members) - 1)
        found = top_lists(teacher, k, place[exclude], table=teacher.items[members])
        lists[:, group, :k] = members[np.maximum(found, PAD)]
    return lists, (lists != PAD).sum(-1).astype(np.int32)


def rank_pairs(
    key: jax.Array, length: Int[Array, "*batch"], *, mu: float = MU
) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"]]:
    """Draws two different ranks: ``P(i, j) ∝ p_i p_j``, i ≠ j, with ``p_r ∝ exp(−r / μ)``, r = 1..R.

    This is the law of drawing both from p until they differ, without drawing again: the first has chance
    ∝ p_i (1 − p_i), the second comes from p without i. Both are found by bisection of their distribution functions.

    Args:
        key: consumed.
        length: R, at least 2.
        mu: μ.

    Returns:
        The better rank and the worse, from 0.
    """
    decay = jnp.exp(-1.0 / mu)
    steps = 20  # enough for lists of a million
    whole = 1.0 - decay**length
    first_draw, second_draw = jax.random.uniform(key, (2, *length.shape))

    def chance(rank: Array) -> Array:
        return decay ** (rank - 1) * (1.0 - decay) / whole

    def below(rank: Array) -> Array:
        return (1.0 - decay**rank) / whole

    def squares(rank: Array) -> Array:
        return ((1.0 - decay) / whole) ** 2 * (1.0 - decay ** (2 * rank)) / (1.0 - decay**2)

    def smallest(function, value: Array, last: Array) -> Array:  # type: ignore[no-untyped-def]
        """The least rank in 1..last at which ``function`` exceeds ``value``; the last where none does."""

        def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) // 2
            exceeds = function(middle) > value
            return jnp.where(exceeds, low, middle + 1), jnp.where(exceeds, middle, high)

        return jax.lax.fori_loop(0, steps, halve, (jnp.ones_like(last), last))[1]

    first = smallest(lambda r: below(r) - squares(r), first_draw * (1.0 - squares(length)), length)
    own = chance(first)

    def below_without_first(place: Array) -> Array:
        behind = place >= first
        return below(place + behind) - jnp.where(behind, own, 0.0)

    place = smallest(below_without_first, second_draw * (1.0 - own), length - 1)
    second = place + (place >= first)
    return jnp.minimum(first, second) - 1, jnp.maximum(first, second) - 1


def draw_pairs(
    key: jax.Array,
    lists: Int[Array, "B G K"],
    length: Int[Array, "B G"],
    budget: tuple[int, ...],
    *,
    mu: float = MU,
) -> tuple[Int[Array, "B P"], Int[Array, "B P"], Bool[Array, "B P"]]:
    """Draws every session's pairs: ``budget[g]`` of group g, P together.

    Returns:
        The item the teacher ranks higher, the one it ranks lower, and which pairs exist: a group with fewer than two
        items has none.
    """
    group = np.repeat(np.arange(len(budget)), budget)
    size = length[:, group]
    better, worse = rank_pairs(key, jnp.maximum(size, 2), mu=mu)
    rows = jnp.arange(lists.shape[0])[:, None]
    return lists[rows, group[None], better], lists[rows, group[None], worse], size >= 2


def pair_loss(
    margin: Float[Array, "B P"], drawn: Bool[Array, "B P"], *, weight: Float[Array, " B"] | None = None
) -> Float[Array, ""]:
    """``mean_b mean_p −log σ(s_b,i⁺ − s_b,i⁻)``: the teacher's scores act through their order alone.

    Args:
        margin: the student's score of the item the teacher ranks higher, less that of the other.
        drawn: which pairs count.
        weight: of the rows; 0 takes one out.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    no_positive = jnp.zeros(margin.shape[0])
    return losses.sampled_bpr(no_positive, -margin, weight=weight, where=drawn.astype(margin.dtype))


@functools.lru_cache(maxsize=64)
def pair_term(model: Encoder, budget: tuple[int, ...], *, mu: float = MU) -> Loss:
    """:func:`pair_loss` over pairs drawn afresh at every step.

    ``batch.aside["distillation"]`` holds "lists" and "length" by training session, see :func:`group_lists`.

    Args:
        model: the student's backbone.
        budget: pairs of each group.
        mu: see :func:`rank_pairs`.
    """

    def term(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        guide = batch.loss_inputs["distillation"]
        lists, length = guide["lists"][batch.session], guide["length"][batch.session]
        better, worse, drawn = draw_pairs(noise_key(key), lists, length, budget, mu=mu)
        table = model.apply(params, method="item_embeddings")
        vectors = encode(model, params, batch, key)
        margin = jnp.einsum(
            "bd,bpd->bp", vectors, lookup.embedding_lookup(table, better) - lookup.embedding_lookup(table, worse)
        )
        return pair_loss(margin, drawn, weight=batch.weight)

    return term


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
    """Trains a student that follows the teacher's order among items of like popularity.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: λ.
        num_groups: G.
        num_pairs: M, pairs of a session and step, over all groups.
        gamma: γ of :func:`alkd_jax.distillation.popularity_strata.pair_budget`.
        mu: μ of :func:`rank_pairs`.
        depth: how much of each group's order to keep; ``N · G · depth`` integers on the device.
        sequences: the training sessions uncut, for popularity and for what to leave out; by default as much of them
            as ``train`` holds.
        **options: ``base`` and ``loss_inputs`` of the student's own loss; options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the weight is negative, a size is too small.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
    groups = popularity_groups(counts, num_groups=num_groups)
    teacher = teacher_vectors(teacher_model, teacher_params, train)
    lists, length = group_lists(teacher, groups, whole_sessions(train, sequences), depth=depth)
    term = pair_term(model, pair_budget(counts, groups, num_pairs=num_pairs, gamma=gamma), mu=mu)
    guide = {"lists": lists, "length": length, "weight": weight}
    return fit_with_distillation(key, model, train, validation, term, guide, **options)
