"""Scores from a sparse table, see :mod:`alkd_jax.models.sparse_table`; its entries stay packed in memory."""

import numpy as np
from jaxtyping import Float64, Int

from alkd_jax.checks import check_between, check_share
from alkd_jax.ops import bit_packing, packed_tables
from alkd_jax.serving.packed.packed_kind import Arrays, Options, PackedKind, PackedScorer
from alkd_jax.serving.packed.sessions import known_items

TIE_BREAK = 1e-4
"""Share by which a follower's weight falls with each place in the list of its item."""
POPULAR_SHARE = 1e-6
"""Share of the smallest weight that the first popular item scores."""

TABLE_OPTIONS: Options = {
    "id_bits": 1,
    "weight_bits": 1,
    "num_entries": 1,
    "largest": 1.0,
    "smallest": 1.0,
}

_MAX_ENTRIES = 2**31 - 1
_MAX_WEIGHT = 1e30


def check_table(options: Options, *, least: int = 1) -> None:
    """Refuses options of a table that are out of range, and a table of fewer entries than ``least``."""
    check_between(1, 31, id_bits=options["id_bits"])
    check_between(1, 16, weight_bits=options["weight_bits"])
    check_between(least, _MAX_ENTRIES, num_entries=options["num_entries"])
    smallest, largest = options["smallest"], options["largest"]
    if not 1 / _MAX_WEIGHT <= smallest <= largest <= _MAX_WEIGHT:
        raise ValueError(f"smallest and largest are {smallest} and {largest}; expected finite weights above 0")


def check(options: Options, num_items: int) -> None:
    """Refuses options that are out of range."""
    check_share("recency", options["recency"])
    check_table(options)


def shapes(options: Options, num_items: int) -> dict[str, tuple[int, ...]]:
    """Returns array name → shape."""
    entry_bits = options["id_bits"] + options["weight_bits"]
    return {
        "entries": (bit_packing.packed_size(options["num_entries"], entry_bits),),
        "row_ends": (packed_tables.row_ends_size(options["num_entries"], num_items),),
    }


def scorer(options: Options, arrays: Arrays, num_items: int) -> PackedScorer:
    """Returns how a table scores; beside it the places at which the rows begin are held, in few bits, too."""
    id_bits, entry_bits = options["id_bits"], options["id_bits"] + options["weight_bits"]
    entries = arrays["entries"]
    _, ids, _ = packed_tables.unpack_rows(
        packed_tables.PackedTable(dict(options), entries, arrays["row_ends"]), num_items
    )
    row_starts = packed_tables.row_starts(arrays["row_ends"], options["num_entries"], num_items)
    num_popular = int(row_starts[1])
    place_bits = bit_packing.bits_for(options["num_entries"])
    starts = bit_packing.pack(row_starts, place_bits)
    levels = packed_tables.levels(options)
    popular = ids[:num_popular].astype(np.int64)
    popular_scores = POPULAR_SHARE * options["smallest"] * (1 - np.arange(num_popular) / max(1, num_popular))

    def followers(
        item: Int[np.ndarray, " T"], share: Float64[np.ndarray, " T"]
    ) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " E"], Float64[np.ndarray, " E"]]:
        """Returns the number of followers of each item, and all followers with their weights."""
        start, end = bit_packing.read(starts, place_bits, np.concatenate([item, item + 1])).reshape(2, -1)
        size = end - start
        first = np.cumsum(size) - size
        place = np.arange(size.sum()) - np.repeat(first, size)
        entry = bit_packing.read(entries, entry_bits, np.repeat(start, size) + place)
        weight = levels[entry >> id_bits] * np.repeat(share, size) * (1 - TIE_BREAK * np.minimum(place, 1000))
        return size, entry & (2**id_bits - 1), weight

    def scores(items: Int[np.ndarray, "B N"]) -> Float64[np.ndarray, "B V1"]:
        row, item, steps_to_end = known_items(items)
        size, follower, weight = followers(item, options["recency"] ** steps_to_end)
        cell = np.repeat(row * (num_items + 1), size) + follower
        # Without entries the counts are whole numbers.
        total = np.bincount(cell, weight, minlength=len(items) * (num_items + 1)).astype(np.float64, copy=False)
        total = total.reshape(len(items), num_items + 1)
        total[:, popular] += popular_scores
        return total

    def reached(items: Int[np.ndarray, " N"]) -> tuple[Int[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
        item = items[items > 0].astype(np.int64)
        _, follower, weight = followers(item, options["recency"] ** np.arange(len(item) - 1, -1, -1))
        found, number = np.unique(np.concatenate([follower, popular]), return_inverse=True)
        return found, np.bincount(number, np.concatenate([weight, popular_scores]), minlength=len(found))

    held = starts.nbytes + popular.nbytes + popular_scores.nbytes + levels.nbytes
    return PackedScorer(scores, held, reached)


SPARSE_TABLE = PackedKind(options={"recency": 1.0} | dict(TABLE_OPTIONS), check=check, shapes=shapes, scorer=scorer)
