"""Rules from item to item, and the lessons a student learns from them: for each item, what should come next.

A rule matrix is sparse ``[V + 1, V + 1]``: the weight with which the row's item speaks for the column's. It may come
from counting, from titles, or from a teacher's lists; sums of rule matrices are rule matrices.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array

from alkd_jax.baselines import Counts
from alkd_jax.types import PAD, Rankings, Sequences, Sessions

_BLOCK = 2048
"""Titles compared with all others at a time, to bound memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class RuleTargets:
    """For each of R items that say anything: what follows it, and how much it has to say.

    Attributes:
        item: ``[R]`` int32, items in ``1..V``.
        listed: ``[R, K]`` int32, what follows, strongest first, 0 where fewer.
        gain: ``[R, K]`` float32, with which share; rows sum to 1.
        mass: ``[R]`` float32, sum of all the item's rules.
    """

    item: Int[np.ndarray, " R"]
    listed: Int[np.ndarray, "R K"]
    gain: Float[np.ndarray, "R K"]
    mass: Float[np.ndarray, " R"]


def cooccurrence_rules(counts: Counts, *, backward: float = 0.0) -> csr_array:
    """``F + β Fᵀ``: which item comes after which in training sessions, nearer counting more, and before it with β.

    Args:
        counts: of the training sessions.
        backward: β ≥ 0.

    Raises:
        ValueError: backward is negative.
    """
    if backward < 0:
        raise ValueError(f"backward is {backward}; expected at least 0")
    rules = counts.followers + backward * counts.followers.T if backward else counts.followers
    return without_self(rules)


def title_rules(titles: Sequence[str], *, least: float = 0.25) -> csr_array:
    """Squared cosine of two titles' words, each weighted by its rarity (tf-idf).

    Needs scikit-learn, the extra "titles".

    Args:
        titles: V + 1 of them, the first empty.
        least: cosines below are left out, in (0, 1].

    Raises:
        ValueError: least is out of range, or no title has a word.
    """
    if not 0.0 < least <= 1.0:
        raise ValueError(f"least is {least}; expected in (0, 1]")
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = csr_array(TfidfVectorizer(token_pattern=r"(?u)\w+").fit_transform(titles))
    rows = []
    for start in range(0, words.shape[0], _BLOCK):
        near = csr_array(words[start : start + _BLOCK] @ words.T)
        near.data = np.where(near.data < least, 0.0, near.data**2)
        near.eliminate_zeros()
        rows.append(near)
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.indptr) for part in rows]))])
    data, indices = (np.concatenate([getattr(part, name) for part in rows]) for name in ("data", "indices"))
    return without_self(csr_array((data, indices, indptr), shape=(len(titles), len(titles))))


def list_rules(
    rankings: Rankings,
    sessions: Sessions,
    num_items: int,
    *,
    recency: float = 0.65,
    weights: Sequence[int | float],
    confidence: Float[np.ndarray, " N"] | None = None,
) -> csr_array:
    """What a teacher's lists say, laid to the items of their sessions: ``Σ_s c_s λʲ w_k / Σ w``, v_k for x_j.

    Args:
        rankings: lists for some of the sessions.
        sessions: among them all that are ranked.
        num_items: V.
        recency: λ in (0, 1], for each step before the session's end.
        weights: w, one a place of the list, at least 0.
        confidence: c, one a list, at least 0; default 1.

    Raises:
        ValueError: a ranked session is not there, there are fewer weights than places or another number of confidences
            than lists, one is negative, or an id is out of range.
    """
    if confidence is not None and (len(confidence) != len(rankings) or not np.min(confidence, initial=0) >= 0):
        raise ValueError(f"{len(confidence)} confidences for {len(rankings)} lists; expected one a list, at least 0")
    listed, on = np.asarray(rankings.items), np.asarray(rankings.mask)
    if len(weights) < listed.shape[1]:
        raise ValueError(f"{len(weights)} weights for lists of {listed.shape[1]}; expected one a place")
    if on.any() and not 1 <= listed[on].min() <= listed[on].max() <= num_items:
        raise ValueError(f"listed items span {listed[on].min()}..{listed[on].max()}; expected 1..{num_items}")
    rows = sessions.rows_of(rankings.session_id)
    items, mask = np.asarray(sessions.items)[rows], np.asarray(sessions.mask)[rows]
    says = recency ** (mask.sum(1, keepdims=True) - np.cumsum(mask, 1)) * mask
    share = np.where(on, np.asarray(weights, float)[None, : listed.shape[1]], 0.0)
    share /= np.maximum(share.sum(1, keepdims=True), 1e-12)
    if confidence is not None:
        share *= np.asarray(confidence)[:, None]
    weight = says[:, :, None] * share[:, None, :]
    left, right = (np.broadcast_to(part, weight.shape).ravel() for part in (items[:, :, None], listed[:, None, :]))
    kept = weight.ravel() > 0
    shape = (num_items + 1, num_items + 1)
    return without_self(csr_array((weight.ravel()[kept], (left[kept], right[kept])), shape=shape))


def add_rules(rules: csr_array, more: csr_array, share: float, *, least: float = 1.0) -> csr_array:
    """Adds rules to rules, for each item in proportion to what it says already.

    ``R_x + α max(Σ_v R_xv, m) · M_x / Σ_v M_xv``

    Args:
        rules: R.
        more: M; a row of zeros adds nothing.
        share: α ≥ 0.
        least: m, what an item of which R says little counts as saying.

    Raises:
        ValueError: share or least is negative.
    """
    if share < 0 or least < 0:
        raise ValueError(f"share is {share} and least {least}; expected at least 0")
    says, adds = (np.asarray(part.sum(1)).ravel() for part in (rules, more))
    factor = np.divide(share * np.maximum(says, least), adds, out=np.zeros(len(adds)), where=adds > 0)
    return (rules + diags_array(factor) @ more).tocsr()


def rule_targets(rules: csr_array, *, k: int = 64, power: float = 1.5) -> RuleTargets:
    """Each item's k strongest rules, sharpened: ``g_k ∝ R_xkᵖ``.

    Args:
        rules: R, at least 0.
        k: list length.
        power: p > 0; above 1 the strong rules count for more, which a narrow student is better at.

    Raises:
        ValueError: k is below 1, the power not positive, or no item says anything.
    """
    if k < 1 or not power > 0:
        raise ValueError(f"k is {k} and power {power}; expected at least 1 and above 0")
    rules = rules.tocsr()
    mass = np.asarray(rules.sum(1)).ravel()
    item = np.flatnonzero(mass > 0)
    item = item[item != PAD]
    if item.size == 0:
        raise ValueError("no item has a rule; there is nothing to learn")
    listed, gain = np.zeros((item.size, k), np.int32), np.zeros((item.size, k), np.float32)
    for row, x in enumerate(item):
        found = slice(rules.indptr[x], rules.indptr[x + 1])
        order = np.argsort(-rules.data[found], kind="stable")[:k]
        strength = (rules.data[found][order] / rules.data[found][order[0]]) ** power
        listed[row, : order.size] = rules.indices[found][order]
        gain[row, : order.size] = strength / strength.sum()
    return RuleTargets(item.astype(np.int32), listed, gain, mass[item].astype(np.float32))


def random_walk_sessions(
    rng: np.random.Generator, rules: csr_array, start: Float[np.ndarray, " V"], num: int, *, length: int = 6
) -> Sequences:
    """Sessions that nobody had: each begins at an item drawn by ``start`` and follows the rules by their weights.

    A walk ends after ``length`` items, or earlier at an item without rules; those of a single item are left out.

    Args:
        rng: consumed.
        rules: R, at least 0.
        start: ``[V + 1]`` weights of the first items, the padding's 0.
        num: how many.
        length: items, at least 2.

    Raises:
        ValueError: num or length is too small, or the padding could be drawn.
    """
    if num < 1 or length < 2 or start[PAD] != 0:
        raise ValueError(f"num is {num}, length {length}, start[0] {start[PAD]}; expected 1, 2 at least, and 0")
    rules = rules.tocsr()
    says = np.concatenate([[0.0], np.cumsum(rules.data)])
    at = rng.choice(len(start), num, p=start / start.sum())
    steps = np.zeros((num, length), np.int32)
    steps[:, 0] = at
    for place in range(1, length):
        low, high = says[rules.indptr[at]], says[rules.indptr[at + 1]]
        drawn = np.searchsorted(says, low + rng.random(num) * (high - low), side="right") - 1
        drawn = np.clip(drawn, 0, rules.indptr[at + 1] - 1)
        at = np.where(high > low, rules.indices[np.maximum(drawn, 0)], PAD)
        steps[:, place] = at
    steps = steps[steps[:, 1] != PAD]
    offsets = np.concatenate([[0], np.cumsum((steps != PAD).sum(1))]).astype(np.int32)
    return Sequences(items=steps[steps != PAD], offsets=offsets)


def without_self(rules: csr_array) -> csr_array:
    """Leaves out what an item says of itself, and of or for the padding."""
    pairs = rules.tocoo()
    row, column = pairs.coords
    kept = (row != column) & (row != PAD) & (column != PAD) & (pairs.data != 0)
    return csr_array((pairs.data[kept], (row[kept], column[kept])), shape=rules.shape)
