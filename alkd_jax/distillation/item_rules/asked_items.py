"""Questions about items that counts say little of: their candidates, and the rules that the answers become."""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from alkd_jax.baselines import Counts
from alkd_jax.checks import check_count, check_share, check_span
from alkd_jax.distillation.item_rules.rules import remove_diagonal
from alkd_jax.types import PAD, Rankings

_COUNT_WEIGHT = 0.5
"""How much one count of adjacent items weighs against a cosine of 1, in the order of candidates."""


def rare_items(counts: Counts, *, most: int = 1) -> Int[np.ndarray, " M"]:
    """Returns the items that occur at most ``most`` times in the training sessions, by number.

    Raises:
        ValueError: ``most`` is negative.
    """
    check_count(0, most=most)
    return np.flatnonzero(counts.popularity[1:] <= most).astype(np.int32) + 1


def question_candidates(
    counts: Counts, neighbors: csr_array, asked: Int[np.ndarray, " M"], *, num: int = 30, known: bool = True
) -> tuple[Int[np.ndarray, "M C"], Float[np.ndarray, "M C"]]:
    """Returns the items to show in the question about each item, from titles and counts.

    Those with a similar title or that came before the item in a session are in the order of ``cos(x, v) + n_xv / 2``, n
    the followers' counts; the most popular items fill the list. Only training sessions and titles are read, so that an
    answer is among the candidates only if these point to it.

    Args:
        counts: counts of the training sessions.
        neighbors: ``[V1, V1]`` cosines of titles, see :func:`title_neighbors`.
        asked: M items.
        num: C, the number of candidates of an item.
        known: whether candidates occur in training sessions; otherwise any item of the catalogue may be one. A new item
            of the catalogue may stand in a new session, where counts say nothing of it either.

    Returns:
        ``[M, C]`` distinct candidates, 0 where there are fewer, and ``[M, C]`` the cosine of each, 0 for those that
        stand there for another reason.

    Raises:
        ValueError: an item is unknown, or ``num`` is below 1.
    """
    check_count(1, num=num)
    check_span("asked", asked, 1, counts.num_items)
    popular = np.argsort(-counts.popularity, kind="stable")[: num + 1]
    popular = popular[counts.popularity[popular] > 0]
    before = counts.followers.T.tocsr()
    candidates, cosines = np.zeros((len(asked), num), np.int32), np.zeros((len(asked), num))
    for row, item in enumerate(np.asarray(asked).tolist()):
        cosine = dict(zip(*_entries(neighbors, item), strict=True))
        strength = {other: float(value) for other, value in cosine.items()}
        for other, value in zip(*_entries(before, item), strict=True):
            strength[other] = strength.get(other, 0.0) + _COUNT_WEIGHT * float(value)
        ordered = sorted(strength, key=lambda other: (-strength[other], other))
        similar = [other for other in ordered if other != item and (counts.popularity[other] > 0 or not known)]
        shown = list(dict.fromkeys([*similar, *(other for other in popular.tolist() if other not in (item, PAD))]))[
            :num
        ]
        candidates[row, : len(shown)] = shown
        cosines[row, : len(shown)] = [cosine.get(other, 0.0) for other in shown]
    return candidates, cosines


def entry_chances(
    rules: csr_array, candidates: Int[np.ndarray, "M C"], strength: Float[np.ndarray, "M C"], *, k: int = 10
) -> Float[np.ndarray, "M C"]:
    """``ε_vx = w_vx / (w_vx + t_x)``: how easily an item of a new rule of the weight w enters the first k after x.

    Args:
        rules: ``[V1, V1]`` the rules there are; t is the k-th largest weight of x's rules, 0 where it has fewer.
        candidates: ``[M, C]`` x; 0 where there are fewer.
        strength: ``[M, C]`` w, at least 0.
        k: length of the lists.

    Returns:
        ``[M, C]`` in [0, 1]; 0 where the strength is 0.

    Raises:
        ValueError: ``k`` is below 1, or an item is unknown.
    """
    check_count(1, k=k)
    check_span("candidates", candidates, 0, rules.shape[0] - 1)
    rules = rules.tocsr()
    threshold = np.zeros(rules.shape[0])
    for item in np.unique(candidates).tolist():
        weights = rules.data[rules.indptr[item] : rules.indptr[item + 1]]
        if len(weights) >= k:
            threshold[item] = np.partition(weights, -k)[-k]
    return np.where(strength > 0, strength / np.maximum(strength + threshold[candidates], 1e-12), 0.0)


def _entries(matrix: csr_array, row: int) -> tuple[list[int], list[float]]:
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part].tolist(), matrix.data[part].tolist()


def answer_rules(answers: Rankings, num_items: int, *, place_decay: float = 0.8) -> csr_array:
    """``R_xv = δ^(k−1)`` for the item x at place k of the answer about v: "v follows x".

    The rules are added to others with a weight that is chosen on validation sessions, in units of one count of adjacent
    items.

    Args:
        answers: the items named for each item, which is the session id.
        num_items: V.
        place_decay: δ in (0, 1].

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: an item is unknown, or the decay is out of range.
    """
    check_share("place_decay", place_decay)
    mask = np.asarray(answers.mask)
    check_span("items of answers", np.asarray(answers.items)[mask], 1, num_items)
    check_span("items asked about", np.asarray(answers.session_id), 1, num_items)
    row, place = np.nonzero(mask)
    entries = (place_decay**place, (np.asarray(answers.items)[row, place], np.asarray(answers.session_id)[row]))
    return remove_diagonal(csr_array(entries, shape=(num_items + 1, num_items + 1)))
