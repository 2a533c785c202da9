"""Amazon-M2, the sessions of the KDD Cup 2023 in six locales, with the titles of its products."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from alkd_jax.checks import check_one_of
from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.data.titles import collect_titles

_SESSIONS_FILE, _PRODUCTS_FILE = "sessions_train.csv", "products_train.csv"
_SESSION_COLUMNS = {"items": ("prev_items",), "next": ("next_item",), "locale": ("locale",)}
_PRODUCT_COLUMNS = {"item": ("id",), "locale": ("locale",), "title": ("title",)}
_LOCALES = ("UK", "DE", "JP", "ES", "FR", "IT")
_NUM_SAMPLES = 5
_ID = r"""(?:'[^'"\s\[\],]+'|"[^'"\s\[\],]+")"""
_ONE_ID = r"""^[^'"\s\[\],]*$"""
_LIST_OF_IDS = rf"^\s*\[\s*(?:{_ID}(?:[\s,]+{_ID})*)?\s*\]\s*$"


def load_amazon_m2(path: str | os.PathLike[str], locale: str | None = None, *, strict: bool = False) -> Interactions:
    r"""Reads sessions: the items of ``prev_items`` and then ``next_item``.

    ``prev_items`` is a list as NumPy prints it, ``['B001' 'B002'\n 'B003']``, whose ids have no commas between them; it
    is parsed and not evaluated. A session has the number of its first line as its id and its user. The data have no
    times, so that the order of sessions is that of the rows.

    Args:
        path: a folder or an archive with ``sessions_train.csv`` and, for titles, ``products_train.csv``; or a file of
            sessions.
        locale: UK, DE, JP, ES, FR or IT; the rows of other locales are counted and left out. None for all.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles if there are products: of several titles of a product the first, in the file's
        order, of the locale.

    Raises:
        FileNotFoundError: there is no file of sessions.
        ValueError: the locale is unknown, or a file is damaged, lacks a column, or has a bad row while ``strict`` is
            set.

    Reference:
        Jin et al.: Amazon-M2: A Multilingual Multi-locale Shopping Session Dataset, NeurIPS 2023.
    """
    if locale is not None:
        check_one_of("locale", locale, _LOCALES)
    bad_rows, titles = BadRows(strict), None
    report: dict[str, int] = {}
    file = source_files.file_or_member(path, _SESSIONS_FILE)
    if file.member or pathlib.Path(path).is_dir():
        try:
            products = source_files.find_file(path, _PRODUCTS_FILE)
        except FileNotFoundError:
            products = None
        if products is not None:
            titles, report = collect_titles(str(products), _products(products, locale, bad_rows), bad_rows)
    name = "Amazon-M2" if locale is None else f"Amazon-M2 {locale}"
    frames = ((str(file), frame) for frame in _sessions(file, locale, bad_rows))
    return build_interactions(name, frames, bad_rows, titles=titles, report=report)


def _of_locale(file: TextFile, frame: Any, locale: str | None, bad_rows: BadRows) -> Any:
    """Returns the rows of a locale, and counts the others."""
    import polars as pl

    if locale is None:
        return frame
    wanted = frame.filter(pl.col("locale") == locale)
    bad_rows.others[str(file)] += len(frame) - len(wanted)
    return wanted


def _products(file: TextFile, locale: str | None, bad_rows: BadRows) -> Iterator[Any]:
    optional = () if locale is not None else ("locale",)
    for frame in read_delimited(file, bad_rows, _PRODUCT_COLUMNS, optional=optional, separator=",", quote='"'):
        yield _of_locale(file, frame, locale, bad_rows)


def _sessions(file: TextFile, locale: str | None, bad_rows: BadRows) -> Iterator[Any]:
    """Yields frames with one item a row."""
    import polars as pl

    optional = ("next",) if locale is not None else ("next", "locale")
    for frame in read_delimited(file, bad_rows, _SESSION_COLUMNS, optional=optional, separator=",", quote='"'):
        frame = _of_locale(file, frame, locale, bad_rows)
        is_list = pl.col("items").str.contains(_LIST_OF_IDS)
        wrong = frame.filter(~is_list)
        samples = wrong.head(_NUM_SAMPLES).select("line", "items").iter_rows()
        bad_rows.add(str(file), "not a list of item ids", samples, total=len(wrong))
        items = pl.col("items").str.extract_all(r"""[^'"\s\[\],]+""")
        if "next" in frame.columns:
            is_id = pl.col("next").str.strip_chars().str.contains(_ONE_ID).fill_null(True)
            wrong = frame.filter(is_list & ~is_id)
            samples = wrong.head(_NUM_SAMPLES).select("line", "next").iter_rows()
            bad_rows.add(str(file), "not an item id", samples, total=len(wrong))
            is_list &= is_id
            items = items.list.concat(pl.col("next").str.strip_chars())
        yield (
            frame.filter(is_list)
            .select("line", session=pl.col("line").cast(pl.String), item=items)
            .explode("item", empty_as_null=True)
        )
