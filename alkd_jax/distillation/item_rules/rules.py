"""Item-to-item rules, and the soft labels that a student learns from them.

The rules are a sparse matrix R ``[V1, V1]``, V1 = V + 1: entry ``R_xv`` is the weight of "item v follows item x". The
weights come from counts, from titles, or from a teacher's lists. Row and column 0, the padding, are empty; sums of
rule matrices are rule matrices.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array

from alkd_jax.baselines import Counts
from alkd_jax.checks import check_at_least, check_count, check_finite, check_share, check_span, check_where
from alkd_jax.types import PAD, Rankings, Sequences, Sessions

_BLOCK = 2048
"""Number of titles that are compared with all others at a time, which bounds the memory needed."""


@dataclasses.dataclass(frozen=True, eq=False)
class RuleTargets:
    """Soft labels of the R items that have rules.

    Attributes:
        items: ``[R]`` int32, items x in ``1..V``.
        list_items: ``[R, K]`` int32, the items with the strongest rules of x, strongest first; 0 in short lists.
        list_gain: ``[R, K]`` float32, their probabilities; rows sum to 1.
        mass: ``[R]`` float32, ``Σ_v R_xv``, the sum of all rules of x.
    """

    items: Int[np.ndarray, " R"]
    list_items: Int[np.ndarray, "R K"]
    list_gain: Float[np.ndarray, "R K"]
    mass: Float[np.ndarray, " R"]


def cooccurrence_rules(counts: Counts, *, backward: float = 0.0, repeats: bool = False) -> csr_array:
    """``R = F + β Fᵀ``: F_xv counts how often v follows x in a training session, with more weight for closer items.

    Args:
        counts: counts of the training sessions.
        backward: β, at least 0, the weight of items that precede x.
        repeats: whether an item may follow itself, which counts where the items of a session are ranked too.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: ``backward`` is negative.
    """
    check_at_least(0, backward=backward)
    rules = counts.followers + backward * counts.followers.T if backward else counts.followers
    return csr_array(rules) if repeats else remove_diagonal(rules)


def title_rules(titles: Sequence[str], *, min_cosine: float = 0.25) -> csr_array:
    """``R_xv = cos(t_x, t_v)²`` of the titles' tf-idf vectors t.

    The function needs scikit-learn, the extra "titles".

    Args:
        titles: V1 titles, the first of them empty.
        min_cosine: in (0, 1]; lower cosines are set to 0.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: ``min_cosine`` is out of its range, or no title has a word.
    """
    if not 0.0 < min_cosine <= 1.0:
        raise ValueError(f"min_cosine is {min_cosine}; expected above 0 and at most 1")
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = csr_array(TfidfVectorizer(token_pattern=r"(?u)\w+").fit_transform(titles))
    blocks = []
    for start in range(0, vectors.shape[0], _BLOCK):
        block = csr_array(vectors[start : start + _BLOCK] @ vectors.T)
        block.data = np.where(block.data < min_cosine, 0.0, block.data**2)
        block.eliminate_zeros()
        blocks.append(block)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(block.indptr) for block in blocks]))])
    data, indices = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("data", "indices"))
    return remove_diagonal(csr_array((data, indices, indptr), shape=(len(titles), len(titles))))


def list_rules(
    rankings: Rankings,
    sessions: Sessions,
    num_items: int,
    *,
    recency: float = 0.65,
    weights: Sequence[int | float],
    confidence: Float[np.ndarray, " N"] | None = None,
) -> csr_array:
    """``R_xv = Σ_s c_s λʲ w_k / Σ w`` over the sessions s with x at j steps before the end and v at rank k of the list.

    Args:
        rankings: lists for some of the sessions.
        sessions: sessions, among them all that have a list.
        num_items: V.
        recency: λ in (0, 1], the factor for each step before the end of the session.
        weights: w, the weight of each position of a list, at least 0.
        confidence: c, the weight of each list, at least 0; default 1.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: a list belongs to no session, there are fewer weights than positions, the number of confidences is
            not the number of lists, a weight or a confidence is negative or not finite, or recency or an item is out of
            range.
    """
    check_share("recency", recency)
    check_weights("weights", weights)
    if confidence is not None:
        check_weights("confidence", confidence)
        if len(confidence) != len(rankings):
            raise ValueError(
                f"confidence has {len(confidence)} numbers; expected one for each of {len(rankings)} lists"
            )
    list_items, list_mask = np.asarray(rankings.items), np.asarray(rankings.mask)
    if len(weights) < list_items.shape[1]:
        raise ValueError(
            f"weights has {len(weights)} numbers; expected one for each of {list_items.shape[1]} positions"
        )
    check_span("items of rankings", list_items[list_mask], 1, num_items)
    ranked = sessions.take(sessions.rows_of(rankings.session_id))
    items, mask = np.asarray(ranked.items), np.asarray(ranked.mask)
    item_weight = recency ** (mask.sum(1, keepdims=True) - np.cumsum(mask, 1)) * mask
    list_weight = np.where(list_mask, np.asarray(weights, float)[None, : list_items.shape[1]], 0.0)
    list_weight /= np.maximum(list_weight.sum(1, keepdims=True), 1e-12)
    if confidence is not None:
        list_weight *= np.asarray(confidence)[:, None]
    weight = item_weight[:, :, None] * list_weight[:, None, :]
    row, column = (
        np.broadcast_to(array, weight.shape).ravel() for array in (items[:, :, None], list_items[:, None, :])
    )
    is_positive = weight.ravel() > 0
    entries = (weight.ravel()[is_positive], (row[is_positive], column[is_positive]))
    return remove_diagonal(csr_array(entries, shape=(num_items + 1, num_items + 1)))


def add_rules(rules: csr_array, extra_rules: csr_array, share: float, *, min_mass: float = 1.0) -> csr_array:
    """``R_x + α max(Σ_v R_xv, m) · M_x / Σ_v M_xv``: adds rules in proportion to the sum of each item's rules.

    Args:
        rules: R.
        extra_rules: M; a row of zeros adds nothing.
        share: α, at least 0.
        min_mass: m, at least 0, which replaces a smaller sum of an item's rules in R.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: ``share`` or ``min_mass`` is negative.
    """
    check_at_least(0, share=share, min_mass=min_mass)
    mass, extra_mass = (np.asarray(matrix.sum(1)).ravel() for matrix in (rules, extra_rules))
    factor = np.divide(
        share * np.maximum(mass, min_mass), extra_mass, out=np.zeros(len(extra_mass)), where=extra_mass > 0
    )
    return (rules + diags_array(factor) @ extra_rules).tocsr()


def rule_targets(rules: csr_array, *, k: int = 64, power: float = 1.5) -> RuleTargets:
    """``g_k ∝ R_xkᵖ`` over the K strongest rules of each item x.

    Args:
        rules: R, at least 0.
        k: K, length of the lists, at least 1.
        power: p, positive; above 1 strong rules get a larger share, which narrow students learn better.

    Returns:
        The soft labels of the items that have rules.

    Raises:
        ValueError: an option is out of its range, a rule is negative or not finite, or no item has a rule.
    """
    check_count(1, k=k)
    if not 0 < power < np.inf:
        raise ValueError(f"power is {power}; expected a finite number above 0")
    rules = rules.tocsr()
    check_weights("weights of rules", rules.data)
    mass = np.asarray(rules.sum(1)).ravel()
    items = np.flatnonzero(mass > 0)
    items = items[items != PAD]
    if items.size == 0:
        raise ValueError("rules is 0 for every item; expected an item with a rule")
    list_items, list_gain = np.zeros((items.size, k), np.int32), np.zeros((items.size, k), np.float32)
    for row, item in enumerate(items):
        entries = slice(rules.indptr[item], rules.indptr[item + 1])
        order = np.argsort(-rules.data[entries], kind="stable")[:k]
        strength = (rules.data[entries][order] / rules.data[entries][order[0]]) ** power
        list_items[row, : order.size] = rules.indices[entries][order]
        list_gain[row, : order.size] = strength / strength.sum()
    return RuleTargets(items.astype(np.int32), list_items, list_gain, mass[items].astype(np.float32))


def random_walk_sessions(
    rng: np.random.Generator, rules: csr_array, start: Float[np.ndarray, " V1"], num: int, *, length: int = 6
) -> Sequences:
    """Samples artificial sessions: random walks whose transition probabilities are proportional to the rules.

    A walk ends after ``length`` items, or earlier at an item without rules; walks of a single item are left out.

    Args:
        rng: a NumPy generator; the function advances it.
        rules: R, at least 0.
        start: ``[V1]`` weights with which the first item is sampled, 0 for padding.
        num: number of walks, at least 1.
        length: largest number of items of a walk, at least 2.

    Returns:
        At most ``num`` sessions.

    Raises:
        ValueError: ``num`` or ``length`` is too small, the weight of padding is not 0, a weight is negative or not
            finite, or no item has a weight.
    """
    check_count(1, num=num)
    check_count(2, length=length)
    if start[PAD] != 0:
        raise ValueError(f"start[0] is {start[PAD]}; expected 0, the weight of padding")
    check_weights("start", start)
    if not start.any():
        raise ValueError("start is 0 for every item; expected an item with a weight")
    rules = rules.tocsr()
    check_weights("weights of rules", rules.data)
    cumulative = np.concatenate([[0.0], np.cumsum(rules.data)])
    current = rng.choice(len(start), num, p=start / start.sum())
    walks = np.zeros((num, length), np.int32)
    walks[:, 0] = current
    for position in range(1, length):
        low, high = cumulative[rules.indptr[current]], cumulative[rules.indptr[current + 1]]
        entry = np.searchsorted(cumulative, low + rng.random(num) * (high - low), side="right") - 1
        entry = np.clip(entry, 0, rules.indptr[current + 1] - 1)
        current = np.where(high > low, rules.indices[np.maximum(entry, 0)], PAD)
        walks[:, position] = current
    walks = walks[walks[:, 1] != PAD]
    offsets = np.concatenate([[0], np.cumsum((walks != PAD).sum(1))]).astype(np.int32)
    return Sequences(items=walks[walks != PAD], offsets=offsets)


def check_weights(name: str, weights: Sequence[int | float] | np.ndarray) -> None:
    """Refuses weights that are negative or not finite.

    Raises:
        ValueError: a weight is; the error names its index.
    """
    weights = np.asarray(weights)
    check_finite(name, weights)
    check_where(weights >= 0, name, weights, "at least 0")


def remove_diagonal(rules: csr_array) -> csr_array:
    """Removes the rules of an item for itself, and those of padding."""
    entries = rules.tocoo()
    row, column = entries.coords
    is_rule = (row != column) & (row != PAD) & (column != PAD) & (entries.data != 0)
    return csr_array((entries.data[is_rule], (row[is_rule], column[is_rule])), shape=rules.shape)
