"""What training sessions say of items: counts, pairs, and which item follows which, kept sparse."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from alkd_jax.types import Sequences

_LEAST = 1e-3
"""A pair so far apart that it counts for less is left out."""


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """What N training sessions say of the items ``1..V``: exact counts in float64, ready to multiply with weights.

    Attributes:
        num_items: V.
        popularity: ``[V + 1]``, occurrences of each item, inputs and targets alike.
        transitions: ``[V + 1, V + 1]``, how often the column's item directly follows the row's.
        followers: ``[V + 1, V + 1]``, how often the column's item comes after the row's in a session, nearer counting
            more: ``Σ decayᵈ⁻¹`` over all pairs d places apart.
        co_occurrence: ``[V + 1, V + 1]``, sessions that contain both items; on the diagonal, that contain the item.
        contents: ``[N, V + 1]``, 1 where the session contains the item.
        postings: ``[V + 1, N]``, the transpose: the sessions of each item.
    """

    num_items: int
    popularity: Float[np.ndarray, " V1"]
    transitions: csr_array
    followers: csr_array
    co_occurrence: csr_array
    contents: csr_array
    postings: csr_array


def count(sequences: Sequences, num_items: int, *, decay: float = 0.9) -> Counts:
    """Counts items, adjacent pairs, followers and co-occurrences of whole training sessions.

    Args:
        sequences: N training sessions, never cut, inputs followed by the target.
        num_items: V.
        decay: in (0, 1), what a follower counts for each further place apart; pairs that would count for less than a
            thousandth are left out.

    Returns:
        The counts every method of this module scores with.

    Raises:
        ValueError: there is nothing to count, an id is outside ``1..V``, the offsets do not cut up the items, or decay
            is out of range.
    """
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay is {decay}; expected in (0, 1)")
    if items.size == 0:
        raise ValueError("training sequences hold no items; expected at least one")
    check_ids(items, num_items, "training sequences")
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != items.size or lengths.min() < 0:
        raise ValueError(
            f"offsets go from {offsets[0]} to {offsets[-1]}; expected to rise from 0 to the {items.size} items"
        )
    session = np.repeat(np.arange(lengths.size), lengths)
    adjacent = session[1:] == session[:-1]
    contents = _tally(session, items, (lengths.size, num_items + 1))
    contents.data[:] = 1.0
    postings = contents.T.tocsr()
    return Counts(
        num_items=num_items,
        popularity=np.bincount(items, minlength=num_items + 1).astype(np.float64),
        transitions=_tally(items[:-1][adjacent], items[1:][adjacent], (num_items + 1, num_items + 1)),
        followers=_followers(session, items, num_items, decay),
        co_occurrence=(postings @ contents).tocsr(),
        contents=contents,
        postings=postings,
    )


def _followers(session: Int[np.ndarray, " T"], items: Int[np.ndarray, " T"], num_items: int, decay: float) -> csr_array:
    """Sums decayed pairs over all distances within a session."""
    total = csr_array((num_items + 1, num_items + 1))
    farthest = 1 + int(np.log(_LEAST) / np.log(decay))
    for apart in range(1, min(farthest, len(items) - 1) + 1):
        together = session[apart:] == session[:-apart]
        if not together.any():
            break
        pairs = _tally(items[:-apart][together], items[apart:][together], total.shape)
        total = total + decay ** (apart - 1) * pairs
    return total.tocsr()


def _tally(row: Int[np.ndarray, " T"], column: Int[np.ndarray, " T"], shape: tuple[int, int]) -> csr_array:
    """Counts how often each (row, column) occurs."""
    return csr_array((np.ones(row.size), (row, column)), shape=shape)


def check_ids(items: Int[np.ndarray, "..."], num_items: int, where: str) -> None:
    """Raises ValueError on the first id outside ``1..num_items``."""
    wrong = items[(items < 1) | (items > num_items)]
    if wrong.size:
        raise ValueError(f"item {wrong[0]} in the {where} is outside 1..{num_items}")
