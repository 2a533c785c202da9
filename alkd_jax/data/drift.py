"""How far the items of validation and test are from those of training: popularity, unseen items, times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int64

from alkd_jax.types import Sequences

HEAD_SHARE = 0.1
"""Share of the items in training that are its head, the most popular first."""


def js_divergence(first: Float[np.ndarray, " V"], second: Float[np.ndarray, " V"]) -> float:
    """Returns the Jensen–Shannon divergence of two distributions in bits, from 0 (equal) to 1 (disjoint).

    JSD(p, q) = ½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q).

    Args:
        first: ``[V]`` counts or probabilities, not all 0.
        second: the same for the other distribution.

    Example:
        >>> js_divergence(np.array([1.0, 1.0]), np.array([2.0, 0.0]))  # doctest: +ELLIPSIS
        0.311...
    """
    p, q = first / first.sum(), second / second.sum()
    mean = (p + q) / 2
    bits = [np.sum(part[part > 0] * np.log2(part[part > 0] / mean[part > 0])) for part in (p, q)]
    return float(sum(bits) / 2)


def drift(
    sequences: Sequences,
    sizes: Sequence[int],
    num_items: int,
    *,
    first_target: Int[np.ndarray, " N"] | None = None,
    time: Int64[np.ndarray, " T"] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares the targets of validation and of test with the events of training.

    Args:
        sequences: N sessions in the order training, validation, test.
        sizes: numbers of sessions in the three parts.
        num_items: V.
        first_target: ``[N]`` position of the first target of each session; None for 1.
        time: ``[T]`` time of every item, milliseconds since 1970 in UTC; None if unknown.
        seed: random seed of ``js_divergence_at_random``.

    Returns:
        For "train", "validation" and "test" plain JSON values: ``events`` (all of training, the targets of the others),
        ``on_head``, the share on the most popular tenth of the items in training, ``first_time`` and ``last_time``,
        None if unknown; and for validation and test ``unseen``, the share on items that training does not contain,
        ``js_divergence`` of the popularity of items from that of training, and ``js_divergence_at_random``, its value
        where the events of both parts are exchanged at random, which is what the numbers of events alone cause. A part
        without events is None.
    """
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets, np.int64)
    length = np.diff(offsets)
    position = np.arange(len(items)) - np.repeat(offsets[:-1], length)
    part = np.repeat(np.repeat(np.arange(3), sizes), length)
    first = 1 if first_target is None else np.repeat(first_target, length)
    chosen = [part == 0, (part == 1) & (position >= first), (part == 2) & (position >= first)]
    counts = [np.bincount(items[rows], minlength=num_items + 1)[1:].astype(np.float64) for rows in chosen]
    num_head = max(round(HEAD_SHARE * np.count_nonzero(counts[0])), 1)
    head = np.argsort(-counts[0], kind="stable")[:num_head]
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for name, rows, count in zip(("train", "validation", "test"), chosen, counts, strict=True):
        if not count.any():
            result[name] = None
            continue
        result[name] = {
            "events": int(count.sum()),
            "on_head": float(count[head].sum() / count.sum()),
            "first_time": None if time is None else int(time[rows].min()),
            "last_time": None if time is None else int(time[rows].max()),
        }
        if name != "train" and counts[0].any():
            pooled = rng.permutation(items[chosen[0] | rows]) - 1
            exchanged = [
                np.bincount(half, minlength=num_items).astype(np.float64)
                for half in np.split(pooled, [int(counts[0].sum())])
            ]
            result[name] |= {
                "unseen": float(count[counts[0] == 0].sum() / count.sum()),
                "js_divergence": js_divergence(counts[0], count),
                "js_divergence_at_random": js_divergence(exchanged[0], exchanged[1]) if exchanged[1].any() else None,
            }
    return result
