"""Columns of Parquet files as text, in batches of rows."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.columns import check_columns
from alkd_jax.data.text.source_files import file_below
from alkd_jax.errors import printable

if TYPE_CHECKING:
    import polars as pl

_BATCH_ROWS = 1 << 20


def read_parquet(
    path: pathlib.Path,
    bad_rows: BadRows,
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str],
    one_of: Sequence[str] = (),
    *,
    lists: bool = False,
) -> Iterator[Any]:
    """Reads some columns.

    Args:
        path: the file; its name is taken as it is, without wildcards.
        bad_rows: counts the rows, and those with bytes that are no UTF-8.
        columns: purpose of a column → the names it may have.
        optional: keys of ``columns`` that may be missing.
        one_of: some of them, of which at least one may not be missing.
        lists: whether columns may hold lists. A row then has as many interactions as its lists have elements, which
            share its ``line``; rows whose lists have different lengths are counted as bad.

    Yields:
        Polars frames with a column for each key and ``line``, the row's number from 1. All columns except ``time`` are
        text; a number that is whole is written without a fraction, and NaN is null.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, lacks a column, or has a column that is neither numbers nor text.
    """
    import polars as pl

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with _polars_errors(path):
        # The absolute path, because polars replaces "~" at the start of a path.
        table = pl.scan_parquet(path.absolute(), glob=False, hive_partitioning=False)
        available = table.collect_schema().names()
        num_rows = table.select(pl.len()).collect().item()
    column_of = {key: next((name for name in names if name in available), None) for key, names in columns.items()}
    present = [key for key, name in column_of.items() if name is not None]
    check_columns(str(path), available, present, columns, optional=optional, one_of=one_of)
    bad_rows.found[str(path)] += num_rows
    selected = table.select(pl.col(name).alias(key) for key, name in column_of.items() if name)
    first = 1
    with _polars_errors(path):
        batches = selected.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True)
    while True:
        with _polars_errors(path):
            batch = next(batches, None)
        if batch is None:
            return
        line = pl.int_range(first, first + len(batch), dtype=pl.Int64, eager=True)
        first += len(batch)
        batch = batch.with_columns(line=line)
        if lists:
            batch = _expand_lists(path, batch, bad_rows)
        line, batch = batch["line"], batch.drop("line")
        texts = [_as_text(path, batch[key]) if key != "time" else batch[key] for key in batch.columns]
        yield _drop_undecodable(path, batch, pl.DataFrame(texts).with_columns(line=line), bad_rows)


def find_parquet(path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Returns a file, or the Parquet files of a folder at any depth, in the order of their paths.

    Args:
        path: a file of any name, or a folder.

    Raises:
        FileNotFoundError: there is no such file or folder, or the folder has no file that ends in ``.parquet``.
        ValueError: a file of the folder is a link to something outside of it.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return [path]
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*.parquet") if not file.is_dir())
    if not names:
        raise FileNotFoundError(f"{path} has no .parquet file")
    return [file_below(path, name) for name in names]


def _expand_lists(path: pathlib.Path, batch: "pl.DataFrame", bad_rows: BadRows) -> "pl.DataFrame":
    """Returns one row per element of the lists in each row, and counts the rows whose lists do not match."""
    import polars as pl

    inner = {name: kind.inner for name, kind in batch.schema.items() if isinstance(kind, pl.List | pl.Array)}
    names = list(inner)
    if not names:
        return batch
    batch = batch.with_columns(pl.col(name).cast(pl.List(kind)) for name, kind in inner.items())
    lengths = [pl.col(name).list.len().fill_null(0) for name in names]
    same = pl.all_horizontal(length == lengths[0] for length in lengths)
    wrong = batch.filter(~same)
    bad_rows.add(str(path), "lists of different lengths", ((line, "") for line in wrong["line"]))
    return batch.filter(same).explode(names, empty_as_null=True)


@contextlib.contextmanager
def _polars_errors(path: pathlib.Path) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = printable(next(iter(str(error).splitlines()), ""), width=150)
        raise ValueError(f"{path}: not a readable Parquet file ({reason}); expected an undamaged file") from error


def _as_text(path: pathlib.Path, column: "pl.Series") -> "pl.Series":
    """Returns a column of ids or titles as text; null where a value is missing, is NaN, or is no UTF-8."""
    import polars as pl

    kind = column.dtype
    if kind == pl.Binary:
        return pl.Series(column.name, [_decoded(value) for value in column], dtype=pl.String)
    if kind.is_nested() or kind in (pl.Object, pl.Time, pl.Duration):
        raise ValueError(
            f"{path}: the type of the {column.name} column is {kind}; expected numbers or text, one interaction a row"
        )
    if not kind.is_float():
        return column.cast(pl.String)
    # A column of whole numbers with a missing one is often stored as floats.
    number = pl.when(column.is_finite()).then(column)
    whole = pl.when(column == column.round()).then(column.cast(pl.Int64, strict=False)).cast(pl.String)
    return pl.select(pl.coalesce(whole, number.cast(pl.String)).alias(column.name)).to_series()


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _drop_undecodable(path: pathlib.Path, batch: Any, texts: Any, bad_rows: BadRows) -> Any:
    """Counts the rows with a value whose bytes are no UTF-8, and returns the others."""
    import polars as pl

    bad = pl.Series([False]).new_from_index(0, len(batch))
    for key in batch.columns:
        if batch[key].dtype == pl.Binary:
            bad |= batch[key].is_not_null() & texts[key].is_null()
    if not bad.any():
        return texts
    rows = zip(texts.filter(bad)["line"], batch.filter(bad).rows(), strict=True)
    bad_rows.add(str(path), "not in the file's encoding", rows)
    return texts.filter(~bad)
