"""What is known of the items of recorded lists: the list's own order, counts, titles and item numbers."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import PairCounts

_RECENCY = 0.65
_SMALL = 0.01
"""What is added to a share before its logarithm."""


@dataclasses.dataclass(frozen=True, eq=False)
class ListFeatures:
    """The lists that hold their session's target, and what is known of their items.

    Attributes:
        sets: name of a set of features → ``[N, K, F]``, 0 where the mask is False.
        mask: ``[N, K]``, True on the items of a list.
        chosen: ``[N]``, the place of the target in its list.
        seen: ``[N, K]``, occurrences of each item in the other training sessions.
        co_occurs: ``[N, K]``, whether another training session holds it together with an item of the history.
        history_length: ``[N]``.
    """

    sets: Mapping[str, Float[np.ndarray, "N K F"]]
    mask: Bool[np.ndarray, "N K"]
    chosen: Int[np.ndarray, " N"]
    seen: Float[np.ndarray, "N K"]
    co_occurs: Bool[np.ndarray, "N K"]
    history_length: Int[np.ndarray, " N"]


def list_features(
    dataset: alkd.Dataset, rankings: alkd.Rankings, words: csr_array | None, *, seed: int = 0
) -> ListFeatures:
    """Collects what is known of the items of those lists that hold their session's target.

    Args:
        dataset: the data; the lists are of its training sessions.
        rankings: distinct items in each list.
        words: ``[V1, D]`` vectors of the titles of length 1 or 0; without them there is no set "titles".
        seed: of the control, the same lists in random order.

    Raises:
        ValueError: no list holds the target of its session, or a list is of no training session.
    """
    sessions = dataset.train.rows_of(rankings.session_id)
    items, mask = np.asarray(rankings.items), np.asarray(rankings.mask)
    is_target = mask & (items == np.asarray(dataset.train.target)[sessions][:, None])
    kept = np.flatnonzero(is_target.any(1) & (mask.sum(1) > 1))
    if not kept.size:
        raise ValueError(f"none of the {len(items)} lists holds its session's next item; expected some that do")
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    offsets, sequence = np.asarray(dataset.train_sequences.offsets), np.asarray(dataset.train_sequences.items)
    rng = np.random.default_rng(seed)
    mask, chosen = mask[kept], is_target[kept].argmax(1)
    parts: dict[str, list[np.ndarray]] = {}
    for row in kept:
        listed = items[row, is_item] if not (is_item := np.asarray(rankings.mask)[row]).all() else items[row]
        history = sequence[offsets[sessions[row]] : offsets[sessions[row] + 1] - 1]
        pairs = baselines.pair_counts_without(counts, int(sessions[row]), listed)
        found = {
            "rank": rank_features(np.arange(len(listed))),
            "shuffled": rank_features(rng.permutation(len(listed))),
            "counts": count_features(pairs),
            "item number": number_features(history, listed, dataset.num_items),
            "seen": pairs.popularity,
            "co_occurs": (pairs.co_occurrence > 0).any(0),
        }
        if words is not None:
            found["titles"] = title_features((words[history] @ words[listed].T).toarray())
        for name, values in found.items():
            parts.setdefault(name, []).append(np.asarray(values))
    arrays = {name: _padded(values, mask) for name, values in parts.items()}
    length = np.diff(offsets)[sessions[kept]] - 1
    return ListFeatures(
        {name: array for name, array in arrays.items() if array.ndim == 3},
        mask,
        chosen,
        arrays["seen"],
        arrays["co_occurs"],
        length,
    )


def rank_features(place: Int[np.ndarray, " C"]) -> Float[np.ndarray, "C F"]:
    """Returns ``log(1 + place)``, the place itself, and whether it is the first or among the first three.

    Args:
        place: places from 0.
    """
    return np.stack([np.log1p(place), place.astype(np.float64), place == 0, place < 3], axis=-1).astype(np.float64)


def count_features(pairs: PairCounts) -> Float[np.ndarray, "C F"]:
    """Returns popularity, followers, preceders, transitions, co-occurrences: amounts, shares and cosines, in logs."""
    weight = _RECENCY ** np.arange(len(pairs.history_popularity))[::-1]
    share = pairs.followers / (1.0 + pairs.history_popularity)[:, None]
    scale = np.sqrt((1.0 + pairs.history_popularity)[:, None] * (1.0 + pairs.popularity))
    features = [
        np.log1p(pairs.popularity),
        np.log1p(pairs.popularity) ** 2,
        pairs.popularity < 1,
        pairs.popularity < 2,
        np.log1p(weight @ pairs.followers),
        np.log(_SMALL + weight @ share),
        np.log(_SMALL + weight @ (pairs.followers / scale)),
        np.log1p(weight @ pairs.preceders),
        np.log1p(weight @ pairs.co_occurrence),
        np.log1p(pairs.co_occurrence[-1]),
        np.log(_SMALL + (pairs.co_occurrence / scale).max(0)),
        np.log1p(pairs.transitions[-1]),
        (pairs.co_occurrence > 0).any(0),
        (pairs.co_occurrence > 0).sum(0),
        (pairs.co_occurrence > 1).any(0),
        np.log1p(pairs.co_occurrence).sum(0),
    ]
    return np.stack(features, axis=-1).astype(np.float64)


def title_features(cosines: Float[np.ndarray, "H C"]) -> Float[np.ndarray, "C F"]:
    """Returns largest, mean, last and recency-weighted cosines with the titles of the history, and two of squares."""
    weight = _RECENCY ** np.arange(len(cosines))[::-1]
    features = [
        cosines.max(0),
        cosines.mean(0),
        cosines[-1],
        weight @ cosines,
        weight @ cosines**2,
        cosines.max(0) ** 2,
    ]
    return np.stack(features, axis=-1).astype(np.float64)


def number_features(
    history: Int[np.ndarray, " H"], listed: Int[np.ndarray, " C"], num_items: int
) -> Float[np.ndarray, "C F"]:
    """Returns the distances of item numbers from those of the history, and the numbers: raw ids may tell of age."""
    distance = np.abs(history[:, None].astype(np.float64) - listed[None, :])
    nearest = distance.min(0)
    features = [
        np.log1p(nearest),
        np.log1p(distance[-1]),
        np.exp(-nearest / 3),
        np.exp(-nearest / 30),
        np.exp(-nearest / 300),
        nearest < 2,
        listed / num_items,
        np.log(listed),
    ]
    return np.stack(features, axis=-1).astype(np.float64)


def _padded(rows: list[np.ndarray], mask: Bool[np.ndarray, "N K"]) -> np.ndarray:
    """Returns the items' values of all lists as one array, 0 where there is no item."""
    values = np.concatenate(rows)
    padded = np.zeros((*mask.shape, *values.shape[1:]), values.dtype)
    padded[mask] = values
    return padded
