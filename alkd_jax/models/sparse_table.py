"""Sparse table: each item has a short list of followers with weights of few bits, and a session adds up its items'."""

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

from alkd_jax.checks import check_at_least, check_between, check_count, check_share, check_span
from alkd_jax.models.packed_student import PackedStudent
from alkd_jax.models.stored_sessions import packed_sessions
from alkd_jax.ops import packed_tables
from alkd_jax.types import PAD, Sequences

KIND = "sparse_table"
COUNTED_KIND = "counted_table"


def packed_table(
    rules: csr_array,
    *,
    recency: float = 0.5,
    weight_bits: int = 4,
    popular: Int[np.ndarray, " K"] | None = None,
    smallest_share: float = 1e-3,
) -> PackedStudent:
    """``score(v | s) = Σ_j λʲ R̂[x_j, v]``, R̂ the rules with weights rounded to 2ᵏ levels, equal steps of the logarithm.

    The followers of an item are stored in descending order of their exact weights; a follower whose rounded weight is
    that of another is set below it by a ten-thousandth. Items that no item of the session leads to are ordered by the
    list of popular items, which is stored as the row of the padding.

    Args:
        rules: ``[V1, V1]`` R, at least 0; row and column 0 empty.
        recency: λ in (0, 1], the factor for each step before the end of the session.
        weight_bits: k, number of bits of a weight, in ``1..16``.
        popular: ``[K]`` items that follow where the session's items say nothing, best first; none by default.
        smallest_share: weights below this share of the largest one are rounded up to it.

    Returns:
        The student, of ``nnz(R) + K`` entries.

    Raises:
        ValueError: an option is out of its range, or no item has a rule.
    """
    check_share("recency", recency)
    check_share("smallest_share", smallest_share)
    num_items = rules.shape[0] - 1
    popular = np.zeros(0, np.int64) if popular is None else np.asarray(popular, np.int64)
    check_span("popular", popular, 1, num_items)
    table = _pack(rules, weight_bits, popular, smallest_share)
    if table.options["num_entries"] == len(popular):
        raise ValueError("rules is 0 for every item; expected an item with a rule")
    arrays = {"entries": table.entries, "row_ends": table.row_ends}
    return PackedStudent(KIND, {"recency": float(recency)} | table.options, arrays, num_items)


def counted_table(
    sequences: Sequences,
    num_items: int,
    *,
    extra_rules: csr_array | None = None,
    decay: float = 0.9,
    recency: float = 0.5,
    backward: float = 0.0,
    damping: float = 0.0,
    use: float = 0.0,
    num_kept: int,
    num_popular: int = 32,
    weight_bits: int = 4,
) -> PackedStudent:
    """A sparse table that is counted when it is loaded: training sessions take fewer bytes than the rules in them.

    The table has ``R = pop^−δ (F + β Fᵀ) + R̂_extra``, of which ``num_kept`` entries are kept, see
    :func:`alkd_jax.ops.packed_tables.most_useful`.

    Args:
        sequences: N training sessions at full length.
        num_items: V.
        extra_rules: ``[V1, V1]`` rules that the sessions do not hold, such as those of titles; none by default.
        decay: as of :func:`alkd_jax.baselines.count`.
        recency: as of :func:`packed_table`.
        backward: β, at least 0.
        damping: δ, at least 0.
        use: α of the entries that are kept.
        num_kept: number of entries of the table in memory.
        num_popular: number of popular items that follow where the session's items say nothing.
        weight_bits: number of bits of a weight, of the extra rules in the file and of all entries in memory.

    Returns:
        The student.

    Raises:
        ValueError: an option is out of its range, or the extra rules are of another number of items.
    """
    check_count(1, num_kept=num_kept)
    check_count(0, num_popular=num_popular)
    check_at_least(-1, use=use)
    rules = csr_array((num_items + 1, num_items + 1)) if extra_rules is None else extra_rules
    if rules.shape != (num_items + 1, num_items + 1):
        raise ValueError(f"shape of extra_rules is {rules.shape}; expected {(num_items + 1, num_items + 1)}")
    sessions = packed_sessions(sequences, num_items, decay=decay, recency=recency, backward=backward, damping=damping)
    table = _pack(rules, weight_bits, np.zeros(0, np.int64), 1e-3)
    options = {f"session_{name}": sessions.options[name] for name in ("id_bits", "length_bits")}
    shared = ("decay", "recency", "backward", "damping", "max_distance", "num_events", "num_sessions")
    options |= {name: sessions.options[name] for name in shared} | table.options
    options |= {"use": float(use), "num_kept": num_kept, "num_popular": num_popular}
    arrays = dict(sessions.arrays) | {"entries": table.entries, "row_ends": table.row_ends}
    return PackedStudent(COUNTED_KIND, options, arrays, num_items)


def _pack(
    rules: csr_array, weight_bits: int, popular: Int[np.ndarray, " K"], smallest_share: float
) -> packed_tables.PackedTable:
    """Packs the rules of items.

    Raises:
        ValueError: the number of bits is out of its range.
    """
    check_between(1, 16, weight_bits=weight_bits)
    entries = rules.tocoo()
    row, column = entries.coords
    kept = (entries.data > 0) & (row != PAD) & (column != PAD)
    return packed_tables.pack_rows(
        row[kept],
        column[kept],
        entries.data[kept].astype(np.float64),
        num_items=rules.shape[0] - 1,
        weight_bits=weight_bits,
        first_row=popular,
        smallest_share=smallest_share,
    )
