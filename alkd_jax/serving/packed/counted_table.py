"""A sparse table that is counted in stored sessions when it is loaded, see :mod:`alkd_jax.models.sparse_table`.

What stays in memory is a student of the kind "sparse_table": the sessions are read once.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.checks import check_between
from alkd_jax.ops import packed_tables
from alkd_jax.serving.packed import sparse_table, stored_sessions
from alkd_jax.serving.packed.packed_kind import Arrays, Options, PackedKind, PackedScorer, Resident

_MAX_PAIRS = 2**27
"""The largest number of pairs of items that are counted, so that a damaged file does not fill the memory."""


def session_options(options: Options) -> Options:
    """Returns the options of the sessions alone."""
    names = ("decay", "recency", "backward", "damping", "max_distance", "num_events", "num_sessions")
    own = {name: options[name] for name in names}
    return own | {name: options[f"session_{name}"] for name in ("id_bits", "length_bits")}


def check(options: Options, num_items: int) -> None:
    """Refuses options that are out of range."""
    stored_sessions.check(session_options(options), num_items)
    sparse_table.check_table(options, least=0)
    check_between(-1, 2, use=options["use"])
    check_between(1, 2**31 - 1, num_kept=options["num_kept"])
    check_between(0, 2**16, num_popular=options["num_popular"])


def shapes(options: Options, num_items: int) -> dict[str, tuple[int, ...]]:
    """Returns array name → shape."""
    return stored_sessions.shapes(session_options(options), num_items) | sparse_table.shapes(options, num_items)


def resident(options: Options, arrays: Arrays, num_items: int) -> Resident:
    """Counts the rules, adds the extra ones, and returns the table that stays in memory."""
    items, lengths = stored_sessions.read_sessions(session_options(options), arrays, num_items)
    popularity = np.bincount(items, minlength=num_items + 1)
    row, column, weight = followers(items, lengths, options, num_items)
    weight = weight * np.maximum(popularity, 1.0)[row] ** -options["damping"]
    extra = packed_tables.unpack_rows(
        packed_tables.PackedTable(dict(options), arrays["entries"], arrays["row_ends"]), num_items
    )
    row, column, weight = (np.concatenate(pair) for pair in zip((row, column, weight), extra, strict=True))
    row, column, weight = add_up(row, column, weight, num_items)
    kept = packed_tables.most_useful(row, weight, options["num_kept"], popularity=popularity, use=options["use"])
    popular = np.argsort(-popularity, kind="stable")[: options["num_popular"]]
    table = packed_tables.pack_rows(
        row[kept],
        column[kept],
        weight[kept],
        num_items=num_items,
        weight_bits=options["weight_bits"],
        first_row=popular[popularity[popular] > 0],
    )
    own = {"entries": table.entries, "row_ends": table.row_ends}
    return "sparse_table", {"recency": options["recency"]} | table.options, own


def followers(
    items: Int[np.ndarray, " T"], lengths: Int[np.ndarray, " S"], options: Options, num_items: int
) -> tuple[Int[np.ndarray, " E"], Int[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Returns the rules ``F + β Fᵀ`` of the sessions as entries, each pair of items once.

    Raises:
        ValueError: the sessions have too many pairs of items.
    """
    most = min(options["max_distance"], int(lengths.max()) - 1)
    if np.minimum(lengths, most + 1).astype(np.int64) @ lengths > _MAX_PAIRS:
        raise ValueError(
            f"sessions of up to {lengths.max()} items have too many pairs; expected at most {_MAX_PAIRS:,}"
        )
    session = np.repeat(np.arange(len(lengths)), lengths)
    cells, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for distance in range(1, most + 1):
        same = session[distance:] == session[:-distance]
        first, second = items[:-distance][same], items[distance:][same]
        weight = np.full(len(first), options["decay"] ** (distance - 1))
        cells.append(first * (num_items + 1) + second)
        weights.append(weight)
        if options["backward"]:
            cells.append(second * (num_items + 1) + first)
            weights.append(options["backward"] * weight)
    cell = np.concatenate(cells)
    row, column, weight = add_up(cell // (num_items + 1), cell % (num_items + 1), np.concatenate(weights), num_items)
    is_rule = row != column
    return row[is_rule], column[is_rule], weight[is_rule]


def add_up(
    row: Int[np.ndarray, " E"], column: Int[np.ndarray, " E"], weight: Float[np.ndarray, " E"], num_items: int
) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Adds the weights of equal entries, and returns the entries by row and column."""
    cell, number = np.unique(row.astype(np.int64) * (num_items + 1) + column, return_inverse=True)
    return (
        cell // (num_items + 1),
        cell % (num_items + 1),
        np.bincount(number, weight, minlength=len(cell)).astype(np.float64, copy=False),
    )


def scorer(options: Options, arrays: Arrays, num_items: int) -> PackedScorer:
    """Returns how the table scores; what is held beside the arrays is the table."""
    _, table_options, table_arrays = resident(options, arrays, num_items)
    table = sparse_table.scorer(table_options, table_arrays, num_items)
    held = table.nbytes + sum(array.nbytes for array in table_arrays.values())
    return dataclasses.replace(table, nbytes=held)


COUNTED_TABLE = PackedKind(
    options={name: value for name, value in stored_sessions.STORED_SESSIONS.options.items() if name != "length_bits"}
    | {"session_id_bits": 1, "session_length_bits": 1}
    | dict(sparse_table.TABLE_OPTIONS)
    | {"use": 0.0, "num_kept": 1, "num_popular": 0},
    check=check,
    shapes=shapes,
    scorer=scorer,
    resident=resident,
)
