"""Sequences of users as text: a user and items in time order on each line, as S3-Rec, SASRec and BERT4Rec use it."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import MISSING_IDS, Interactions, build_interactions
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.source_files import TextFile

_NUM_SAMPLES = 5


def load_user_sequences(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads lines of ids that are separated by blanks or tabs: a user, then at least one item.

    The items of a line follow those of the user's earlier lines. So both forms in use are read: ``user item item …``,
    with one line a user, and ``user item``, with one line an interaction, sorted by time.

    Args:
        path: the file, plain or compressed.
        strict: whether the first bad line raises an error.

    Returns:
        The interactions. The files have no times, so their order is that of the rows, and no titles.
        ``report["users_on_several_lines"]`` counts the users with more than one line.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, or has a bad line while ``strict`` is set.

    Reference:
        Zhou et al.: S3-Rec, CIKM 2020; Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018.
    """
    bad_rows, report = BadRows(strict), {"users_on_several_lines": 0}
    file = TextFile(pathlib.Path(path))
    name = file.plain_name.removesuffix(".txt")
    log = build_interactions(name, _frames(file, bad_rows, report), bad_rows, report=report)
    return log


def _frames(file: TextFile, bad_rows: BadRows, report: dict[str, int]) -> Iterator[tuple[str, Any]]:
    """Yields frames of one row per item, and counts the users of several lines."""
    import polars as pl

    num_lines: dict[str, int] = {}
    for first, block in text_files.read_blocks(file):
        lines = pl.DataFrame({"text": block.decode().split("\n")[:-1]}, schema={"text": pl.String})
        lines = lines.select(
            line=pl.int_range(first, first + len(lines), dtype=pl.Int64), text=pl.col("text").str.strip_chars(" \t\r")
        ).filter(pl.col("text") != "")
        bad_rows.found[str(file)] += len(lines)
        ids = lines.with_columns(ids=pl.col("text").str.extract_all(r"[^ \t]+"))
        undecodable = pl.col("text").str.contains(text_files.UNDECODABLE, literal=True)
        user, items = pl.col("ids").list.first(), pl.col("ids").list.slice(1)
        for reason, bad in (
            ("not in the file's encoding", undecodable),
            ("no user", user.is_in(MISSING_IDS)),
            ("no item", (items.list.len() == 0) | items.list.eval(pl.element().is_in(MISSING_IDS)).list.any()),
        ):
            matches = ids.filter(bad)
            samples = matches.head(_NUM_SAMPLES).select("line", "text").iter_rows()
            bad_rows.add(str(file), reason, samples, total=len(matches))
            ids = ids.filter(~bad)
        for name in ids.select(user=user)["user"]:
            num_lines[name] = num_lines.get(name, 0) + 1
        yield str(file), ids.select("line", user=user, item=items).explode("item")
    report["users_on_several_lines"] = sum(count > 1 for count in num_lines.values())
