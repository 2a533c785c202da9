"""Titles of items from the rows of a file of titles."""

from collections.abc import Iterable
from typing import Any

from alkd_jax.data.interactions import MISSING_IDS
from alkd_jax.data.text.bad_rows import BadRows


def collect_titles(file: str, frames: Iterable[Any], bad_rows: BadRows) -> tuple[dict[str, str], dict[str, int]]:
    """Takes the first title of each item that is not empty.

    Args:
        file: name of the file.
        frames: polars frames with columns ``line`` and ``item``, and ``title`` if the file has titles; null is empty.
        bad_rows: counts the rows without an item.

    Returns:
        Item identifier → title, in the order of the file, and counts for a report.

    Raises:
        RuntimeError: the reader dropped a row without counting it.
    """
    titles: dict[str, str] = {}
    num_repeated, before = 0, bad_rows.account
    for frame in frames:
        names = frame["title"].fill_null("") if "title" in frame.columns else [""] * len(frame)
        without_item = []
        for line, item, title in zip(frame["line"], frame["item"], names, strict=True):
            if item is None or item in MISSING_IDS:
                without_item.append((line, title))
                continue
            num_repeated += item in titles
            if not titles.get(item):
                titles[item] = title
        bad_rows.add(file, "no item", without_item)
    bad_rows.check(file, before, len(titles) + num_repeated)
    return titles, {"titles_read": len(titles), "titles_repeated_items": num_repeated}
