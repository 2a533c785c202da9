"""Which items to ask about: the traffic that an answer could change, and the game over items with these gains.

A question is "which of these items go before this one". Its answer changes the lists of sessions that hold one of the
named items, so it is worth as much as such sessions are followed by the item and are not led to it already.
"""

import jax
import numpy as np
from jaxtyping import Float, Int

from alkd_jax import maxmin
from alkd_jax.checks import check_count, check_where
from alkd_jax.selection.gains import class_counts
from alkd_jax.selection.sampling import select


def expected_use(popularity: Float[np.ndarray, " V1"]) -> Float[np.ndarray, " V1"]:
    """The share of future events that an item is expected to be, and that counts do not lead to already.

    ``use_v = (n_v + κ) / Σ_w (n_w + κ) · (κ / (n_v + κ))²``

    The first factor is the expected share of events, the second one the part of them that an item's n_v occurrences do
    not explain. κ is the Good–Turing estimate of how often an unseen item occurs in as many further events,
    ``κ = N₁ / N₀``, with N_n the number of items that occur n times.

    Args:
        popularity: ``[V1]`` n, occurrences of each item in the training sessions; that of padding is not read.

    Returns:
        ``[V1]``, 0 for padding.

    Raises:
        ValueError: a number is negative, or all are 0.

    Reference:
        Good, The population frequencies of species and the estimation of population parameters, 1953.

    Example:
        >>> use = alkd.selection.expected_use(np.array([0.0, 0.0, 1.0, 9.0]))
        >>> bool(use[1] > use[2] > use[3] > use[0] == 0)
        True
    """
    check_where(popularity >= 0, "popularity", popularity, "at least 0")
    counts = np.asarray(popularity, np.float64)[1:]
    if not counts.any():
        raise ValueError("popularity is 0 for every item; expected an item that occurs")
    prior = max(float((counts == 1).sum()), 1.0) / max(float((counts == 0).sum()), 1.0)
    use = prior**2 / ((counts + prior) * (counts + prior).sum())
    return np.concatenate([[0.0], use])


def question_values(
    use: Float[np.ndarray, " M"], named: Float[np.ndarray, "M C"], entry: Float[np.ndarray, "M C"]
) -> Float[np.ndarray, " M"]:
    """``value_v = use_v · (1 − Π_c (1 − π_vc ε_vc))``: the share of future events whose lists the answer could change.

    Args:
        use: ``[M]`` of the items, see :func:`expected_use`.
        named: ``[M, C]`` π, the chance that a candidate is named and stands in the history when the item comes next; 0
            where there are fewer candidates.
        entry: ``[M, C]`` ε, the chance that the item then enters the lists of sessions with the candidate.

    Returns:
        ``[M]`` at least 0.

    Raises:
        ValueError: shapes disagree, or a chance is out of range.
    """
    if entry.shape != named.shape or named.shape[:1] != use.shape:
        shapes = f"named {list(named.shape)}, entry {list(entry.shape)}"
        raise ValueError(f"shapes are {shapes}; expected [{len(use)}, C] for both, as use")
    for name, chance in (("named", named), ("entry", entry)):
        check_where((chance >= 0) & (chance <= 1), name, chance, "a chance from 0 to 1")
    return np.asarray(use, np.float64) * -np.expm1(np.log1p(-np.minimum(named * entry, 1 - 1e-12)).sum(1))


def select_items(
    key: jax.Array,
    value: Float[np.ndarray, " M"],
    *,
    num: int,
    ratios: tuple[int, int, int] = (1, 5, 4),
) -> Int[np.ndarray, " num"]:
    """Samples the items to ask about from the max-min policy of the game whose gains are the values of the questions.

    An effective answer gains the value of its question, a similar one half, and an incorrect one loses half. The
    adversary assigns the classes. The policy draws among the items of the largest values; where these are fewer than
    ``num``, all of them are asked about, and the rest in the order of their values.

    Args:
        key: a JAX key; the function consumes it.
        value: ``[M]`` values; items of value 0 are never asked about.
        num: number of items.
        ratios: effective : similar : incorrect answers.

    Returns:
        ``[num]`` distinct indices.

    Raises:
        ValueError: a value is negative or not finite, or fewer than ``num`` are above 0.
    """
    check_count(1, num=num)
    check_where((value >= 0) & (value < np.inf), "value", value, "a finite number of at least 0")
    order = np.argsort(-value, kind="stable")[: int((value > 0).sum())]
    if num > len(order):
        raise ValueError(f"num is {num}; expected 1 to {len(order)}, the number of items whose value is above 0")
    log_gain = np.log(value[order]) - np.log(value[order[0]])
    num_effective, num_similar, _ = class_counts(len(order), ratios)
    half = np.log(0.5)
    solution = maxmin.solve(
        log_gain, log_gain + half, log_gain + half, num_effective=num_effective, num_similar=num_similar, log_gains=True
    )
    log_policy = np.asarray(solution.log_policy)
    if int((log_policy > -np.inf).sum()) < num:
        return order[:num]
    return order[np.asarray(select(key, log_policy, num=num))]
