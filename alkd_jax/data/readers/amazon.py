"""Amazon reviews of any category, editions of 2014, 2018 and 2023, with titles from the metadata."""

import html
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.json_lines import HALF_CHARACTER, is_unicode, read_json_lines, read_objects
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.data.times import EARLIEST_TIME

_REVIEW_KEYS: Mapping[int, Mapping[str, tuple[str, ...]]] = {
    2014: {"user": ("reviewerID",), "item": ("asin",), "time": ("unixReviewTime",)},
    2018: {"user": ("reviewerID",), "item": ("asin",), "time": ("unixReviewTime",)},
    2023: {"user": ("user_id",), "item": ("parent_asin",), "time": ("timestamp", "sortTimestamp")},
}
_RATING_COLUMNS = {
    "user": ("user_id", "reviewerID", "user"),
    "item": ("parent_asin", "asin", "item"),
    "time": ("timestamp", "unixReviewTime", "time"),
}
_ITEM_KEY = {2014: "asin", 2018: "asin", 2023: "parent_asin"}
_ITEM_PATTERN = re.compile(r"[A-Z0-9]{10}")
_USER_PATTERN = re.compile(r"A[A-Z0-9]{11,}")
_MAX_INSPECTED_LINES = 1000


def load_amazon(
    reviews: str | os.PathLike[str],
    meta: str | os.PathLike[str] | None = None,
    *,
    year: int,
    unescape: bool = False,
    strict: bool = False,
) -> Interactions:
    """Reads reviews, or ratings only, and titles. Every review is an interaction, whatever its rating.

    Args:
        reviews: JSON lines (``Video_Games.json.gz``, …), or ratings as csv; plain or gzipped.
        meta: metadata as JSON lines or Python literals (2014), plain or gzipped; None for no titles.
        year: edition 2014, 2018 or 2023, which determines the keys.
        unescape: whether HTML entities such as ``&amp;`` in titles are decoded; the authors of ALKDRec kept them.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles in the order of the metadata. Identifiers keep their leading zeros.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the year is unknown, a file is damaged, or has a bad row while ``strict`` is set.

    Reference:
        McAuley et al. 2015; Ni, Li, McAuley 2019; Hou et al. 2024.
    """
    if year not in _REVIEW_KEYS:
        raise ValueError(f"year is {year}; expected {' or '.join(map(str, _REVIEW_KEYS))}")
    bad_rows = BadRows(strict)
    titles, report = (
        (None, {}) if meta is None else _read_titles(TextFile(pathlib.Path(meta)), year, unescape, bad_rows)
    )
    file = TextFile(pathlib.Path(reviews))
    frames = ((str(file), frame) for frame in _review_frames(file, year, bad_rows))
    name = f"Amazon {year} {file.path.name.split('.')[0]}"
    return build_interactions(name, frames, bad_rows, titles=titles, earliest=EARLIEST_TIME, report=report)


def _review_frames(file: TextFile, year: int, bad_rows: BadRows) -> Iterator[Any]:
    first_block = next((block for _, block in text_files.read_blocks(file, size=1 << 18)), b"")
    if first_block.lstrip().startswith(b"{"):
        return read_json_lines(file, bad_rows, _REVIEW_KEYS[year])
    lines = first_block.decode("utf-8", "replace").splitlines()[:_MAX_INSPECTED_LINES]
    if not lines:
        raise ValueError(f"{file} is empty; expected reviews as JSON lines or ratings as csv")
    first = lines[0].split(",")
    if not {"parent_asin", "asin", "item"}.isdisjoint(first):
        return read_delimited(file, bad_rows, _RATING_COLUMNS, separator=",")
    return read_delimited(file, bad_rows, _RATING_COLUMNS, separator=",", header=_ratings_header(file, lines))


def _ratings_header(file: TextFile, lines: Sequence[str]) -> list[str]:
    """Detects whether the user or the item comes first: the editions of 2014 and 2018 differ, and so do copies."""
    rows = [fields for fields in (line.split(",") for line in lines) if len(fields) == 4]
    user_first = sum(bool(_USER_PATTERN.fullmatch(row[0])) and not _USER_PATTERN.fullmatch(row[1]) for row in rows)
    item_first = sum(bool(_USER_PATTERN.fullmatch(row[1])) and not _USER_PATTERN.fullmatch(row[0]) for row in rows)
    items = sum(bool(_ITEM_PATTERN.fullmatch(row[user_first >= item_first])) for row in rows)
    if not rows or user_first == item_first or 2 * items < len(rows):
        raise ValueError(f"{file}, line 1: {lines[0][:80]!r}; expected user,item,rating,time or item,user,rating,time")
    return [*(("user", "item") if user_first > item_first else ("item", "user")), "rating", "time"]


def _read_titles(file: TextFile, year: int, unescape: bool, bad_rows: BadRows) -> tuple[dict[str, str], dict[str, Any]]:
    """Returns the titles in the order of the file; the first non-empty title of each identifier is taken."""
    titles: dict[str, str] = {}
    num_repeated, key, before = 0, _ITEM_KEY[year], bad_rows.account
    for line, row in read_objects(file, bad_rows):
        item, title = row.get(key), row.get("title")
        title = title if isinstance(title, str) else ""
        if not isinstance(item, str) or not item:
            bad_rows.add(str(file), f"no {key}", [(line, title)])
            continue
        if not is_unicode(item + title):
            bad_rows.add(str(file), HALF_CHARACTER, [(line, item + title)])
            continue
        num_repeated += item in titles
        if not titles.get(item):
            titles[item] = html.unescape(title) if unescape else title
    bad_rows.check(str(file), before, len(titles) + num_repeated)
    num_untitled = sum(not title for title in titles.values())
    return titles, {
        "titles_file": file.path.name,
        "titles_read": len(titles),
        "titles_repeated_items": num_repeated,
        "titles_missing": num_untitled,
    }
