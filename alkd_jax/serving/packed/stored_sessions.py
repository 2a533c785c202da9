"""Sequential rules, counted in stored sessions for each answer, see :mod:`alkd_jax.models.stored_sessions`."""

import numpy as np
from jaxtyping import Float64, Int, Int64

from alkd_jax.checks import check_between, check_share
from alkd_jax.ops import bit_packing
from alkd_jax.serving.packed.packed_kind import Arrays, Options, PackedKind, PackedScorer
from alkd_jax.serving.packed.sessions import known_items

_DECIMALS = 12
_TIE_BREAK = 1e-6
"""Of the most popular item, as in :func:`alkd_jax.baselines.break_ties`, whose rounding is the same too."""
_MAX_EVENTS = 2**31 - 1


def check(options: Options, num_items: int) -> None:
    """Refuses options that are out of range."""
    check_share("recency", options["recency"])
    check_between(1e-6, 1 - 1e-6, decay=options["decay"])
    check_between(0, 100, backward=options["backward"], damping=options["damping"])
    check_between(1, 31, id_bits=options["id_bits"], length_bits=options["length_bits"])
    check_between(1, _MAX_EVENTS, **{name: options[name] for name in ("max_distance", "num_events", "num_sessions")})


def shapes(options: Options, num_items: int) -> dict[str, tuple[int, ...]]:
    """Returns array name → shape."""
    return {
        "items": (bit_packing.packed_size(options["num_events"], options["id_bits"]),),
        "lengths": (bit_packing.packed_size(options["num_sessions"], options["length_bits"]),),
    }


def read_sessions(
    options: Options, arrays: Arrays, num_items: int
) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " S"]]:
    """Returns the items of all sessions, one after another, and the length of each session.

    Raises:
        ValueError: the lengths do not add up to the number of items, or an item is outside ``1..V``.
    """
    lengths = bit_packing.unpack(arrays["lengths"], options["length_bits"], options["num_sessions"])
    if lengths.sum() != options["num_events"]:
        raise ValueError(f"lengths add up to {lengths.sum()}; expected {options['num_events']}, the number of items")
    items = bit_packing.unpack(arrays["items"], options["id_bits"], options["num_events"])
    if items.min() < 1 or items.max() > num_items:
        raise ValueError(f"items of sessions span {items.min()}..{items.max()}; expected 1..{num_items}")
    return items, lengths


def scorer(options: Options, arrays: Arrays, num_items: int) -> PackedScorer:
    """Returns how the rules score; held are the items, their places, and the numbers of items before and after each."""
    num_events = options["num_events"]
    items, lengths = read_sessions(options, arrays, num_items)
    most = min(options["max_distance"], int(lengths.max()))
    event_items = items.astype(np.min_scalar_type(num_items))
    events = np.argsort(event_items, kind="stable").astype(np.int32)
    count = np.bincount(event_items, minlength=num_items + 1)
    starts = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    end = np.repeat(np.cumsum(lengths), lengths)
    narrow = np.min_scalar_type(most)
    before = np.minimum(np.arange(num_events) - (end - np.repeat(lengths, lengths)), most).astype(narrow)
    after = np.minimum(end - 1 - np.arange(num_events), most).astype(narrow)
    item_share = np.maximum(count, 1.0) ** -options["damping"]
    tie_break = _TIE_BREAK * count / count.max()
    distance_share = options["decay"] ** np.arange(most)
    resident = (event_items, events, starts, before, after, item_share, tie_break, distance_share)

    def add(total: np.ndarray, row: np.ndarray, event: np.ndarray, weight: np.ndarray, step: int) -> None:
        size = (after if step > 0 else before)[event].astype(np.int64)
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        found = event_items[np.repeat(event, size) + step * (1 + place)]
        weight = np.repeat(weight, size) * distance_share[place]
        total += np.bincount(np.repeat(row * (num_items + 1), size) + found, weight, minlength=total.size)

    def scores(items: Int[np.ndarray, "B N"]) -> Float64[np.ndarray, "B V1"]:
        row, item, steps_to_end = known_items(items)
        weight = options["recency"] ** steps_to_end * item_share[item]
        size = starts[item + 1] - starts[item]
        place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        event = events[np.repeat(starts[item], size) + place]
        row, weight = np.repeat(row, size), np.repeat(weight, size)
        total = np.zeros(len(items) * (num_items + 1))
        add(total, row, event, weight, 1)
        if options["backward"]:
            add(total, row, event, options["backward"] * weight, -1)
        return np.round(total.reshape(len(items), num_items + 1) + tie_break, _DECIMALS)

    return PackedScorer(scores, sum(array.nbytes for array in resident))


STORED_SESSIONS = PackedKind(
    options={
        "decay": 0.5,
        "recency": 1.0,
        "backward": 0.0,
        "damping": 0.0,
        "max_distance": 1,
        "id_bits": 1,
        "length_bits": 1,
        "num_events": 1,
        "num_sessions": 1,
    },
    check=check,
    shapes=shapes,
    scorer=scorer,
)
