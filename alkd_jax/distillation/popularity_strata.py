"""Popularity strata for unbiased distillation: groups of items, and how many pairs are sampled from each group."""

import numpy as np
from jaxtyping import Int

from alkd_jax.checks import check_count
from alkd_jax.types import PAD, Sequences


def item_counts(sequences: Sequences, num_items: int) -> Int[np.ndarray, " V1"]:
    """Counts how often every item occurs in the training sessions, targets included; padding, row 0, has count 0."""
    counts = np.bincount(np.asarray(sequences.items), minlength=num_items + 1)
    counts[PAD] = 0
    return counts


def popularity_groups(counts: Int[np.ndarray, " V1"], *, num_groups: int = 4) -> Int[np.ndarray, " V1"]:
    """Divides the items, ordered by popularity, into groups with about equal numbers of interactions.

    A group ends before the item that would raise its number of interactions above A = total / G; an item with more
    than A is a group by itself. The last items form a group if they have more than A / 2, otherwise they join the group
    before. The number of groups may therefore differ from G.

    Args:
        counts: number of interactions of each item.
        num_groups: G, at least 1.

    Returns:
        ``[V1]`` int32 group, 0 the most popular; −1 for items without interactions.

    Raises:
        ValueError: there are no interactions, or ``num_groups`` is below 1.

    Reference:
        Chen et al., Unbiased knowledge distillation for recommendation, WSDM 2023.
    """
    check_count(1, num_groups=num_groups)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    if not len(order):
        raise ValueError("counts is 0 for every item; expected an item with interactions")
    limit = counts.sum() / num_groups
    groups = np.full(len(counts), -1, np.int32)
    group, group_total = 0, 0
    for item in order:
        if group_total and group_total + counts[item] > limit:
            group, group_total = group + 1, 0
        groups[item] = group
        group_total += counts[item]
    if group and group_total <= limit / 2:
        groups[groups == group] = group - 1
    return groups


def allocate_pairs(
    counts: Int[np.ndarray, " V1"], groups: Int[np.ndarray, " V1"], *, num_pairs: int = 30, gamma: float = 0.0
) -> tuple[int, ...]:
    """Computes how many pairs are sampled from each group for a session.

    ``M_g = round(M w_g^γ / Σ w^γ)``, at least M in all, where ``w_g = max r + min r − r_g``, r the mean popularity; w
    is normalized, rounded to two decimals, and raised to at least 0.1. Halves are rounded to even numbers: four groups
    share 30 pairs as 8 each.

    Args:
        counts: number of interactions of each item.
        groups: from :func:`popularity_groups`.
        num_pairs: M.
        gamma: γ; 0 gives equal shares, as in the authors' code; above 0 unpopular groups get more pairs.

    Returns:
        The number of pairs of each group.
    """
    mean = np.array([counts[groups == group].mean() for group in range(groups.max() + 1)])
    preference = mean.max() + mean.min() - mean
    preference = np.maximum(np.round(preference / preference.sum(), 2), 0.1) ** gamma
    pairs_per_group = [round(num_pairs * share) for share in (preference / preference.sum()).tolist()]
    shortfall = max(0, num_pairs - sum(pairs_per_group))
    return tuple(number + (group < shortfall) for group, number in enumerate(pairs_per_group))
