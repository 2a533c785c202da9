"""Places of targets by sparse scores of item-to-item rules, without a dense row of the catalogue for each session."""

import numpy as np
from jaxtyping import Float, Int, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.places import Places
from alkd_jax.baselines.queries import Histories, query_matrix, steps_to_end
from alkd_jax.checks import check_share
from alkd_jax.types import PAD, Sessions

_DECIMALS = 12


def rule_scores(counts: Counts, rules: csr_array, sessions: Sessions, *, recency: float) -> csr_array:
    """``score(v | s) = Σ_j λʲ R[x_j, v]``, x_j the item j steps before the session's end, as a sparse matrix.

    Args:
        counts: counts of the training sessions.
        rules: ``[V1, V1]`` R.
        sessions: N sessions.
        recency: λ in (0, 1].

    Returns:
        ``[N, V1]`` scores; linear in the rules, so that those of a sum of rules are a sum.

    Raises:
        ValueError: the recency is out of range, or an item is unknown.
    """
    check_share("recency", recency)
    histories = Histories(np.asarray(sessions.items), np.asarray(sessions.mask))
    return csr_array(query_matrix(counts, histories, recency ** steps_to_end(histories.mask)) @ rules)


def sparse_places(scores: csr_array, counts: Counts, sessions: Sessions) -> Places:
    """Counts the items above and beside each session's target, as :func:`alkd_jax.baselines.target_places` does.

    Items of the session are not ranked, the target excepted. Of items with equal scores the more popular one comes
    first. Only scores that are stored are looked at; the items without one are counted by their popularity.

    Args:
        scores: ``[N, V1]``, at least 0.
        counts: counts of the training sessions.
        sessions: N sessions.
    """
    num_columns = counts.num_items + 1
    tie_break = np.round(1e-6 * counts.popularity / counts.popularity.max(), _DECIMALS)
    target = np.asarray(sessions.target, np.int64)
    scores = scores.tocsr()
    entry_row = np.repeat(np.arange(len(target)), np.diff(scores.indptr))
    entry = entry_row * num_columns + scores.indices
    value = np.round(scores.data + 1e-6 * counts.popularity[scores.indices] / counts.popularity.max(), _DECIMALS)
    row, position = np.nonzero(np.asarray(sessions.mask))
    seen = _distinct(row * num_columns + np.asarray(sessions.items)[row, position])
    own = np.arange(len(target)) * num_columns + target
    target_value = tie_break[target].copy()
    at, is_target = _find(entry, own)
    target_value[is_target] = value[at[is_target]]
    is_ranked = ~_find(seen, entry)[1] & (scores.indices != PAD) & (scores.indices != target[entry_row])
    better = np.bincount(entry_row[is_ranked & (value > target_value[entry_row])], minlength=len(target))
    equal = np.bincount(entry_row[is_ranked & (value == target_value[entry_row])], minlength=len(target))
    # Items without a score: all of the catalogue but those with an entry, those of the session, and the target.
    ordered = np.sort(tie_break[1:])
    above = len(ordered) - np.searchsorted(ordered, target_value, side="right")
    beside = np.searchsorted(ordered, target_value, side="right") - np.searchsorted(ordered, target_value, side="left")
    listed = _distinct(np.concatenate([entry, seen, own]))
    listed = listed[listed % num_columns != PAD]
    listed_row, listed_value = listed // num_columns, tie_break[listed % num_columns]
    above -= np.bincount(listed_row[listed_value > target_value[listed_row]], minlength=len(target))
    beside -= np.bincount(listed_row[listed_value == target_value[listed_row]], minlength=len(target))
    return Places((better + above).astype(np.int32), (equal + beside).astype(np.int32))


def _distinct(keys: Int64[np.ndarray, " E"]) -> Int64[np.ndarray, " M"]:
    """Returns the distinct keys in ascending order; sorting nearly sorted ones is far faster than ``np.unique``."""
    keys = np.sort(keys, kind="stable")
    return keys[np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])]


def _find(keys: Int64[np.ndarray, " E"], wanted: Int64[np.ndarray, " M"]) -> tuple[Int[np.ndarray, " M"], np.ndarray]:
    """Returns where each wanted key stands among the keys, and whether it does."""
    order = np.argsort(keys, kind="stable")
    at = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(len(keys) - 1, 0))
    if not len(keys):
        return at, np.zeros(len(wanted), bool)
    found: Float[np.ndarray, " M"] | np.ndarray = order[at]
    return found, keys[found] == wanted
