"""EASE, SLIS, SLIT and SLIST: linear models from item to item in closed form, in float64.

All of them need ``P = (ZᵀWZ + λI)⁻¹`` of weighted inputs Z, made in place, block after block of rows, with V³
operations, for the V items that occur in training. P takes ``8 V²`` bytes, or where these are more than
``max_gigabytes`` only a triangle of it, ``4 V²`` bytes, 10 GB for 50,000 items. Scores are made from rows of P, so that
the item-to-item matrix B itself is never held.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.decays import check_scale
from alkd_jax.baselines.partial_sessions import gram, partial_sessions, whole_sessions
from alkd_jax.baselines.queries import Histories, check_query_items, steps_to_end
from alkd_jax.checks import check_at_least, check_between, check_one_of
from alkd_jax.ops import symmetric_inverse
from alkd_jax.ops.symmetric_inverse import SymmetricMatrix

MAX_GIGABYTES = 16.0
"""The most memory that P may take unless one says otherwise: all of it for 44,700 items, a triangle for 62,900."""

NORMALIZATIONS = ("none", "l1", "l2")
"""Norms by which each input row can be divided."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearModel:
    """``score(· | s) = x B``, with x the weighted items of the history.

    ``B = I − P diag(γ)`` where the inputs are the targets, and ``B = P C`` with ``C = ZᵀWY`` where they are not.

    Attributes:
        number: ``[V + 1]``, place of each item among those that occur in training, −1 for the others, which score 0.
        inverse: ``[M, M]``, P.
        gamma: ``[M]``, γ; None with C.
        cross: ``[M, M]``, C; None with γ.
        decay: scale of ``exp(−steps to the end / decay)``, by which the history's items are weighted; None for 1.
        is_set: whether an item that occurs several times in the history counts once.
    """

    number: Int64[np.ndarray, " V1"]
    inverse: SymmetricMatrix
    gamma: Float[np.ndarray, " M"] | None
    cross: csr_array | None
    decay: float | int | None = None
    is_set: bool = False

    def __call__(self, histories: Histories) -> Float[np.ndarray, "B V1"]:
        """Returns the scores of all items."""
        check_query_items(len(self.number) - 1, histories)
        column = self.number[np.where(histories.mask, histories.items, 0)]
        row, place = np.nonzero(histories.mask & (column >= 0))
        weight = np.ones(histories.mask.shape)
        if self.decay is not None:
            weight = np.exp(-steps_to_end(histories.mask) / self.decay)
        shape = (len(histories), len(self.inverse))
        queries = csr_array((weight[row, place], (row, column[row, place])), shape=shape)
        if self.is_set:
            queries.data[:] = 1.0
        found = self.inverse.multiplied(queries)
        if self.cross is not None:
            found = found @ self.cross
        else:
            found = queries.toarray() - found * self.gamma
        scores = np.zeros((len(histories), len(self.number)))
        scores[:, self.number >= 0] = found
        return scores


def ease(counts: Counts, *, reg: float | int = 500.0, max_gigabytes: float | int = MAX_GIGABYTES) -> LinearModel:
    """EASE: ``B = argmin ‖X − XB‖² + λ‖B‖²`` with a diagonal of 0, X the 0-1 matrix of sessions and items.

    ``B_ij = −P_ij / P_jj`` for i ≠ j, with ``P = (XᵀX + λI)⁻¹``. A history is the set of its items.

    Args:
        counts: the counts of the training sessions.
        reg: λ, above 0.
        max_gigabytes: the most memory that P may take; where all of it takes more, a triangle is stored.

    Raises:
        ValueError: an option is out of range, or P takes more memory.

    Reference:
        Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, equation 8.
    """
    number = _numbered(counts, reg, max_gigabytes)
    inverse = _inverse(gram([whole_sessions(counts)], number)[0], reg, max_gigabytes)
    return LinearModel(number, inverse, 1.0 / inverse.diagonal(), None, is_set=True)


def slis(
    counts: Counts,
    *,
    reg: float | int = 10.0,
    session_days: float | int | None = None,
    predict_decay: float | int | None = 1.0,
    max_diagonal: float | int = 1.0,
    normalize: str = "none",
    max_gigabytes: float | int = MAX_GIGABYTES,
) -> LinearModel:
    """SLIS: EASE with weighted sessions and a diagonal that is bounded, not 0, for sessions that repeat items.

    ``B = I − P diag(γ)``, with ``γ_j = λ`` where the diagonal ``1 − λ P_jj`` is at most the bound ξ, else
    ``(1 − ξ) / P_jj``. With ``normalize``, Z are the normalized rows of X, and ``B = P ZᵀWX``.

    Args:
        counts: the counts of the training sessions.
        reg: λ, above 0.
        session_days: scale δ of a session's weight ``exp(−age / δ)``, in days before the last event; None for 1.
        predict_decay: scale of the weights of a history's items, in steps to its end; None for 1.
        max_diagonal: ξ in [0, 1]; 0 is the diagonal of EASE, 1 no bound. Below 1, ``normalize`` has to be "none".
        normalize: norm by which each input row is divided: "none", "l1" or "l2".
        max_gigabytes: the most memory that P may take; where all of it takes more, a triangle is stored.

    Raises:
        ValueError: an option is unknown or out of range, ``session_days`` is given and the training sessions have no
            times, or P takes more memory.

    Reference:
        Choi et al., "Session-aware linear item-item models for session-based recommendation", WWW 2021, SLIS.
    """
    check_between(0, 1, max_diagonal=max_diagonal)
    _check(counts, session_days, predict_decay, normalize)
    number = _numbered(counts, reg, max_gigabytes)
    examples = whole_sessions(counts, session_days, normalize)
    inner, cross = gram([examples], number)
    inverse = _inverse(inner, reg, max_gigabytes)
    if normalize != "none":
        if max_diagonal < 1:
            raise ValueError(f"max_diagonal is {max_diagonal} and normalize is {normalize!r}; expected 1 or 'none'")
        return LinearModel(number, inverse, None, cross, predict_decay)
    diagonal = inverse.diagonal()
    gamma = np.where(1.0 - reg * diagonal <= max_diagonal, reg, (1.0 - max_diagonal) / diagonal)
    return LinearModel(number, inverse, gamma, None, predict_decay)


def slit(
    counts: Counts,
    *,
    reg: float | int = 10.0,
    session_days: float | int | None = None,
    train_decay: float | int | None = 1.0,
    predict_decay: float | int | None = 1.0,
    normalize: str = "none",
    max_gigabytes: float | int = MAX_GIGABYTES,
) -> LinearModel:
    """SLIT: ``B = (ZᵀWZ + λI)⁻¹ ZᵀWY``, with a row for each way to cut a session into a past Z and a future Y.

    An item weighs ``exp(−d / train_decay)``, d the places between it and the one next to the cut on its side.

    Args:
        counts: the counts of the training sessions.
        reg: as of :func:`slis`, as all options that are not named here.
        session_days: as of :func:`slis`.
        train_decay: scale of the items' weights, in places; None for 1.
        predict_decay: as of :func:`slis`.
        normalize: as of :func:`slis`.
        max_gigabytes: as of :func:`slis`.

    Raises:
        ValueError: as in :func:`slis`.

    Reference:
        Choi et al., "Session-aware linear item-item models for session-based recommendation", WWW 2021, SLIT.
    """
    check_scale("train_decay", train_decay)
    _check(counts, session_days, predict_decay, normalize)
    number = _numbered(counts, reg, max_gigabytes)
    inner, cross = gram([partial_sessions(counts, train_decay, session_days, normalize)], number)
    return LinearModel(number, _inverse(inner, reg, max_gigabytes), None, cross, predict_decay)


def slist(
    counts: Counts,
    *,
    reg: float | int = 10.0,
    alpha: float | int = 0.5,
    session_days: float | int | None = None,
    train_decay: float | int | None = 1.0,
    predict_decay: float | int | None = 1.0,
    normalize: str = "none",
    max_gigabytes: float | int = MAX_GIGABYTES,
) -> LinearModel:
    """SLIST: the rows of SLIS with weight α and those of SLIT with weight 1 − α in one problem; the diagonal is free.

    Args:
        counts: the counts of the training sessions.
        reg: as of :func:`slis`, as all options that are not named here.
        alpha: α in [0, 1].
        session_days: as of :func:`slis`.
        train_decay: as of :func:`slit`.
        predict_decay: as of :func:`slis`.
        normalize: as of :func:`slis`.
        max_gigabytes: as of :func:`slis`.

    Raises:
        ValueError: as in :func:`slis`.

    Reference:
        Choi et al., "Session-aware linear item-item models for session-based recommendation", WWW 2021, SLIST.
    """
    check_between(0, 1, alpha=alpha)
    check_scale("train_decay", train_decay)
    _check(counts, session_days, predict_decay, normalize)
    number = _numbered(counts, reg, max_gigabytes)
    whole = whole_sessions(counts, session_days, normalize)
    parts = partial_sessions(counts, train_decay, session_days, normalize)
    inner, cross = gram([whole.weighted(alpha), parts.weighted(1.0 - alpha)], number)
    return LinearModel(number, _inverse(inner, reg, max_gigabytes), None, cross, predict_decay)


def _check(counts: Counts, session_days: float | int | None, predict_decay: float | int | None, normalize: str) -> None:
    check_scale("session_days", session_days)
    check_scale("predict_decay", predict_decay)
    check_one_of("normalize", normalize, NORMALIZATIONS)
    if session_days is not None and counts.sequences.time is None:
        raise ValueError(f"session_days is {session_days}, but the training sessions have no times; expected None")


def _numbered(counts: Counts, reg: float | int, max_gigabytes: float | int) -> Int64[np.ndarray, " V1"]:
    """Numbers the items that occur, and refuses options out of range and what would take too much memory."""
    check_at_least(0, max_gigabytes=max_gigabytes)
    if not (isinstance(reg, int | float | np.number) and not isinstance(reg, bool) and 0 < reg < np.inf):
        raise ValueError(f"reg is {reg!r}; expected a finite number above 0")
    number = np.where(counts.popularity > 0, np.cumsum(counts.popularity > 0) - 1, -1)
    size = int(number.max()) + 1
    least = symmetric_inverse.bytes_of(size, packed=True) / 1e9
    if least > max_gigabytes:
        raise ValueError(
            f"max_gigabytes is {max_gigabytes:g}; expected at least {least:.3g}, the matrix of {size:,} items"
        )
    return number


def _inverse(inner: csr_array, reg: float | int, max_gigabytes: float | int) -> SymmetricMatrix:
    """Returns ``(G + λI)⁻¹`` of a sparse symmetric G ``[M, M]``, all of it where this fits into the memory."""
    size = inner.shape[0]
    packed = symmetric_inverse.bytes_of(size, packed=False) > 1e9 * max_gigabytes
    try:
        return symmetric_inverse.inverse(inner, reg, packed=packed)
    except np.linalg.LinAlgError as error:
        message = f"reg is {reg}; expected a larger one, with which {size:,} items can be solved for"
        raise ValueError(message) from error
