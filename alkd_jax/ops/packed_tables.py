"""Sparse tables in few bits: the rows of a matrix as items with rounded weights. This module loads without JAX."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from alkd_jax.ops import bit_packing


@dataclasses.dataclass(frozen=True, eq=False)
class PackedTable:
    """The rows of a sparse matrix ``[V1, V1]``, each in descending order of weight.

    Attributes:
        options: "id_bits", "weight_bits", "num_entries", and the "largest" and the "smallest" weight.
        entries: item and level of weight of each entry.
        row_ends: a bit 0 for each entry of a row and then a bit 1, row after row.
    """

    options: dict[str, Any]
    entries: UInt8[np.ndarray, " N"]
    row_ends: UInt8[np.ndarray, " M"]


def levels(options: Any) -> Float[np.ndarray, " S"]:
    """Returns the weights ``largest · (smallest / largest)^(s / (2ᵏ − 1))``, s = 0 … 2ᵏ − 1."""
    most = 2 ** options["weight_bits"] - 1
    return options["largest"] * (options["smallest"] / options["largest"]) ** (np.arange(most + 1) / most)


def pack_rows(
    row: Int[np.ndarray, " E"],
    column: Int[np.ndarray, " E"],
    weight: Float[np.ndarray, " E"],
    *,
    num_items: int,
    weight_bits: int,
    first_row: Int[np.ndarray, " K"] | None = None,
    smallest_share: float = 1e-3,
) -> PackedTable:
    """Packs the entries of a matrix; equal weights of a row stand in ascending order of their items.

    Args:
        row: ``[E]`` rows, in ``1..V``; there may be no entry.
        column: ``[E]`` items, in ``1..V``.
        weight: ``[E]`` weights above 0.
        num_items: V.
        weight_bits: k, number of bits of a weight.
        first_row: ``[K]`` items of row 0, in this order, whose weights are not stored.
        smallest_share: weights below this share of the largest one are rounded up to it.
    """
    order = np.lexsort((column, -weight, row))
    row, column, weight = row[order].astype(np.int64), column[order].astype(np.int64), weight[order]
    first = np.zeros(0, np.int64) if first_row is None else np.asarray(first_row, np.int64)
    largest = float(weight.max()) if len(weight) else 1.0
    smallest = max(largest * smallest_share, float(weight.min(initial=largest)))
    most, span = 2**weight_bits - 1, np.log(largest / smallest)
    code = np.zeros(len(weight), np.int64)
    if span > 0:
        code = np.clip(np.rint(np.log(largest / weight) / span * most), 0, most).astype(np.int64)
    sizes = np.bincount(row, minlength=num_items + 1)
    sizes[0] = len(first)
    id_bits = bit_packing.bits_for(num_items)
    ids, codes = np.concatenate([first, column]), np.concatenate([np.zeros(len(first), np.int64), code])
    options = {
        "id_bits": id_bits,
        "weight_bits": weight_bits,
        "num_entries": len(ids),
        "largest": largest,
        "smallest": smallest,
    }
    entries = bit_packing.pack(ids | codes << id_bits, id_bits + weight_bits)
    row_ends = np.zeros(len(ids) + num_items + 1, np.uint8)
    row_ends[np.cumsum(sizes) + np.arange(num_items + 1)] = 1
    return PackedTable(options, entries, np.packbits(row_ends, bitorder="little"))


def row_ends_size(num_entries: int, num_items: int) -> int:
    """Returns the number of bytes of the ends of the rows."""
    return -(-(num_entries + num_items + 1) // 8)


def row_starts(row_ends: UInt8[np.ndarray, " M"], num_entries: int, num_items: int) -> Int[np.ndarray, " R"]:
    """Returns the place of the first entry of each row, and at last the number of entries.

    Raises:
        ValueError: there is another number of rows, or an entry is in none.
    """
    ends = np.flatnonzero(np.unpackbits(row_ends, bitorder="little", count=num_entries + num_items + 1))
    if len(ends) != num_items + 1 or ends[-1] != num_entries + num_items:
        raise ValueError(f"row_ends end {len(ends)} rows; expected {num_items + 1} rows of {num_entries} entries")
    return np.concatenate([[0], ends - np.arange(num_items + 1)])


def unpack_rows(
    table: PackedTable, num_items: int
) -> tuple[Int[np.ndarray, " E"], Int[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Returns row, item and rounded weight of every entry.

    Raises:
        ValueError: the rows have another number of entries, or an item is outside ``1..V``.
    """
    id_bits, num_entries = table.options["id_bits"], table.options["num_entries"]
    sizes = np.diff(row_starts(table.row_ends, num_entries, num_items))
    entry = bit_packing.unpack(table.entries, id_bits + table.options["weight_bits"], num_entries)
    ids = entry & (2**id_bits - 1)
    if len(ids) and (ids.min() < 1 or ids.max() > num_items):
        raise ValueError(f"items of entries span {ids.min()}..{ids.max()}; expected 1..{num_items}")
    return np.repeat(np.arange(num_items + 1), sizes), ids, levels(table.options)[entry >> id_bits]


def most_useful(
    row: Int[np.ndarray, " E"],
    weight: Float[np.ndarray, " E"],
    num: int,
    *,
    popularity: Float[np.ndarray, " V1"] | Int[np.ndarray, " V1"],
    use: float,
) -> Int[np.ndarray, " M"]:
    """Returns the numbers of the entries with the largest ``w_xv (pop(x) / Σ_v w_xv)^α``; of equal ones the first.

    Args:
        row: ``[E]`` x of each entry.
        weight: ``[E]`` w.
        num: number of entries that are kept.
        popularity: ``[V1]`` how often each item occurs in training; one that does not counts as half an occurrence.
        use: α; 0 keeps the largest weights, 1 those that predict most often.
    """
    mass = np.bincount(row, weight, minlength=len(popularity))
    factor = (np.maximum(popularity, 0.5) / np.maximum(mass, 1e-12)) ** use
    return np.argsort(-weight * factor[row], kind="stable")[:num]
