"""A simulated teacher of items, which names the candidates that are similar to an item, and sometimes any of them.

It stands in for a language model at no cost. What it knows are similarities that the caller gives it, such as cosines
of titles: it can then know no more than these.
"""

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.checks import check_at_least, check_between, check_count
from alkd_jax.types import PAD, Rankings


def name_by_similarity(
    seed: int,
    asked: Int[np.ndarray, " M"],
    candidates: Int[np.ndarray, "M C"],
    similarity: Float[np.ndarray, "M C"],
    *,
    k: int = 10,
    accuracy: float = 1.0,
    least: float = 0.2,
) -> Rankings:
    """Names the candidates that are similar enough to each item, the most similar first.

    With probability ``1 − accuracy`` as many random candidates are named instead. Randomness depends on the seed and
    the item alone. Where no candidate is similar enough, none is named.

    Args:
        seed: at least 0.
        asked: M items.
        candidates: ``[M, C]`` the candidates shown for each, distinct; 0 fills a short row.
        similarity: ``[M, C]`` of each candidate with the item.
        k: K, the number of items named at most.
        accuracy: probability that an item is answered by similarity, from 0 to 1.
        least: the smallest similarity of an item that is named.

    Returns:
        ``[M, K]`` named items, with the item asked about as session id.

    Raises:
        ValueError: shapes disagree, or an option is out of range.
    """
    if candidates.shape != similarity.shape or len(candidates) != len(asked):
        shapes = f"candidates {list(candidates.shape)}, similarity {list(similarity.shape)}"
        raise ValueError(f"shapes are {shapes}; expected [{len(asked)}, C] for both, as asked")
    check_at_least(0, seed=seed)
    check_count(1, k=k)
    check_between(0, 1, accuracy=accuracy)
    named = np.zeros((len(asked), k), np.int32)
    for row, item in enumerate(np.asarray(asked).tolist()):
        shown = candidates[row][candidates[row] != PAD]
        of_shown = similarity[row][candidates[row] != PAD]
        order = np.argsort(-of_shown, kind="stable")
        order = order[of_shown[order] >= least][:k]
        rng = np.random.default_rng([seed, item])
        if rng.random() >= accuracy:
            order = rng.permutation(len(shown))[: len(order)]
        named[row, : len(order)] = shown[order]
    return Rankings(np.asarray(asked, np.int32), named, named != PAD)
