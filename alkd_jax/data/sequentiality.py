"""Whether the order of items in sessions matters: sequential rules in ordered and in shuffled sessions."""

from typing import Any

import numpy as np
from jaxtyping import Int64

from alkd_jax.checks import check_between, check_count
from alkd_jax.types import Sequences

MIN_SUPPORT, MIN_CONFIDENCE = 5, 0.1
"""Least support and confidence of a rule, as in the reference of :func:`compare_rules`."""


def shuffle_items(sequences: Sequences, rng: np.random.Generator, *, keep_last: bool = False) -> Sequences:
    """Puts the items of each session into a random order.

    Args:
        sequences: N sessions.
        rng: generator of the order.
        keep_last: whether the last item stays in its place, so that only its history is shuffled.

    Returns:
        Sessions of the same items; the times of their places stay.
    """
    offsets = np.asarray(sequences.offsets, np.int64)
    length = np.diff(offsets)
    key = rng.random(int(length.sum()))
    if keep_last:
        key[offsets[1:][length > 0] - 1] = 1.0
    order = np.lexsort((key, np.repeat(np.arange(len(length)), length)))
    return sequences.replace(items=np.asarray(sequences.items)[order])  # type: ignore[attr-defined]


def count_rules(
    sequences: Sequences, size: int, *, min_support: int = MIN_SUPPORT, min_confidence: float = MIN_CONFIDENCE
) -> int:
    """Counts the rules x₁ … xₙ₋₁ → xₙ, n consecutive items of a session, that are frequent.

    The support of a rule is the number of places at which its n items occur; its confidence is the support divided by
    the number of places at which its first n − 1 items occur with any next item.

    Args:
        sequences: N sessions.
        size: n, at least 2.
        min_support: least support of a rule that counts.
        min_confidence: least confidence of a rule that counts, in [0, 1].

    Returns:
        The number of distinct rules.
    """
    check_count(2, size=size)
    check_count(1, min_support=min_support)
    check_between(0, 1, min_confidence=min_confidence)
    items, offsets = np.asarray(sequences.items, np.int64), np.asarray(sequences.offsets, np.int64)
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    num_places = max(len(items) - size + 1, 0)
    starts = np.flatnonzero(session[:num_places] == session[size - 1 :][:num_places])
    if not len(starts):
        return 0
    antecedent = _numbered(items[starts])
    for step in range(1, size - 1):
        antecedent = _numbered(antecedent * (items.max() + 1) + items[starts + step])
    _, rule, support = np.unique(
        antecedent * (items.max() + 1) + items[starts + size - 1], return_index=True, return_counts=True
    )
    confidence = support / np.bincount(antecedent)[antecedent[rule]]
    return int(np.sum((support >= min_support) & (confidence >= min_confidence)))


def _numbered(key: Int64[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
    """Returns the number of each key among the distinct ones, so that products of numbers stay small."""
    return np.unique(key, return_inverse=True)[1].astype(np.int64)


def compare_rules(sequences: Sequences, *, repeats: int = 5, seed: int = 0) -> dict[str, Any]:
    """Compares the number of frequent rules of two and of three items with that in shuffled sessions.

    Args:
        sequences: N complete sessions.
        repeats: number of shuffles, whose mean is taken.
        seed: random seed of the shuffles.

    Returns:
        For "2-grams" and "3-grams": ``ordered``, the number of rules; ``shuffled``, its mean over the shuffles; and
        ``ratio`` of the two, 0 where the order is everything, about 1 where it does not matter, None where there is no
        rule.

    Reference:
        Klenitskiy, Volodkevich, Pembek, Vasilev: Does It Look Sequential?, RecSys 2024, arXiv 2408.12008.
    """
    check_count(1, repeats=repeats)
    rng = np.random.default_rng(seed)
    shuffles = [shuffle_items(sequences, rng) for _ in range(repeats)]
    result: dict[str, Any] = {}
    for size in (2, 3):
        ordered = count_rules(sequences, size)
        shuffled = float(np.mean([count_rules(shuffle, size) for shuffle in shuffles]))
        result[f"{size}-grams"] = {
            "ordered": ordered,
            "shuffled": shuffled,
            "ratio": shuffled / ordered if ordered else None,
        }
    return result
