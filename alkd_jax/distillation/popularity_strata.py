"""Popularity strata for unbiased distillation: groups of items with like interaction totals, pairs drawn within."""

import numpy as np
from jaxtyping import Int

from alkd_jax.types import PAD, Sequences


def item_counts(sequences: Sequences, num_items: int) -> Int[np.ndarray, " V"]:
    """How often every item occurs in the training sessions, targets included; row 0, the padding, is 0."""
    counts = np.bincount(np.asarray(sequences.items), minlength=num_items + 1)
    counts[PAD] = 0
    return counts


def popularity_groups(counts: Int[np.ndarray, " V"], *, num_groups: int = 4) -> Int[np.ndarray, " V"]:
    """Cuts the items, most popular first, into groups of about equal interaction totals.

    A group is closed before the item that would take it above A = total / G; an item above A is a group by itself. The
    rest becomes a group of its own if it has more than A / 2, else it joins the one before; so there may be more or
    fewer than G.

    Args:
        counts: interactions of each item.
        num_groups: G asked for, at least 1.

    Returns:
        ``[V]`` int32 group, 0 the most popular; −1 for items without interactions.

    Raises:
        ValueError: there are no interactions, or G is below 1.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    if num_groups < 1:
        raise ValueError(f"num_groups is {num_groups}; expected at least 1")
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    if not len(order):
        raise ValueError("no item has interactions; expected at least one")
    limit = counts.sum() / num_groups
    groups = np.full(len(counts), -1, np.int32)
    number, held = 0, 0
    for item in order:
        if held and held + counts[item] > limit:
            number, held = number + 1, 0
        groups[item] = number
        held += counts[item]
    if number and held <= limit / 2:
        groups[groups == number] = number - 1
    return groups


def pair_budget(
    counts: Int[np.ndarray, " V"], groups: Int[np.ndarray, " V"], *, num_pairs: int = 30, gamma: float = 0.0
) -> tuple[int, ...]:
    """How many pairs a session draws from each group.

    ``M_g = round(M w_g^γ / Σ w^γ)``, at least M together, where ``w_g = max r + min r − r_g``, r the mean popularity,
    normalised, rounded to two places, at least 0.1. Rounding halves to even, four groups share 30 as 8 each.

    Args:
        counts: interactions of each item.
        groups: from :func:`popularity_groups`.
        num_pairs: M.
        gamma: 0 shares evenly, as the authors do; above 0 favours the unpopular.
    """
    mean = np.array([counts[groups == group].mean() for group in range(groups.max() + 1)])
    favour = mean.max() + mean.min() - mean
    favour = np.maximum(np.round(favour / favour.sum(), 2), 0.1) ** gamma
    budget = [round(num_pairs * share) for share in (favour / favour.sum()).tolist()]
    short = max(0, num_pairs - sum(budget))
    return tuple(number + (place < short) for place, number in enumerate(budget))
