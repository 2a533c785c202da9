"""Stored sessions: the training sessions in few bits, in which sequential rules are counted for each answer."""

import numpy as np

from alkd_jax.checks import check_at_least, check_between, check_share, check_span
from alkd_jax.models.packed_student import PackedStudent
from alkd_jax.ops import bit_packing
from alkd_jax.types import Sequences

KIND = "stored_sessions"

_MIN_WEIGHT = 1e-3
"""Pairs of items so far apart that their decayed weight is below this are not counted."""


def farthest_follower(decay: float) -> int:
    """Returns the largest distance at which a pair of items is counted: ``decayᵈ⁻¹`` is at least 0.001 up to it."""
    return 1 + int(np.log(_MIN_WEIGHT) / np.log(decay))


def packed_sessions(
    sequences: Sequences,
    num_items: int,
    *,
    decay: float = 0.9,
    recency: float = 0.65,
    backward: float = 0.0,
    damping: float = 0.3,
) -> PackedStudent:
    """Packs the training sessions; the scores are those of :func:`alkd_jax.baselines.sequential_rules`.

    Args:
        sequences: N training sessions at full length.
        num_items: V.
        decay: in (0, 1), as of :func:`alkd_jax.baselines.count`.
        recency: λ, as of ``sequential_rules``.
        backward: β, likewise.
        damping: δ, likewise.

    Returns:
        The student: its arrays have the items of all sessions, and the length of each session.

    Raises:
        ValueError: an option or an id is out of range, or there are no items.
    """
    check_share("recency", recency)
    check_at_least(0, backward=backward, damping=damping)
    check_between(1e-6, 1 - 1e-6, decay=decay)
    items, lengths = np.asarray(sequences.items), np.diff(np.asarray(sequences.offsets))
    if not items.size:
        raise ValueError("number of items in the training sequences is 0; expected at least 1")
    check_span("items of the training sequences", items, 1, num_items)
    id_bits, length_bits = bit_packing.bits_for(num_items), bit_packing.bits_for(int(lengths.max()))
    options = {
        "decay": float(decay),
        "recency": float(recency),
        "backward": float(backward),
        "damping": float(damping),
        "max_distance": farthest_follower(decay),
        "id_bits": id_bits,
        "length_bits": length_bits,
        "num_events": int(items.size),
        "num_sessions": len(lengths),
    }
    arrays = {"items": bit_packing.pack(items, id_bits), "lengths": bit_packing.pack(lengths, length_bits)}
    return PackedStudent(KIND, options, arrays, num_items)
