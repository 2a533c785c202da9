"""Raw data by name: `hetrec2011:PATH`, `amazon2018:REVIEWS:META`, `table:FILE` and the others, as interactions."""

import pathlib
from collections.abc import Mapping

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.readers import amazon, gru4rec, hetrec, lastfm, movielens, recbole, srgnn, tables

FORMS = (
    "hetrec2011:PATH",
    "amazon2014:REVIEWS[:META]",
    "amazon2018:REVIEWS[:META]",
    "amazon2023:REVIEWS[:META]",
    "movielens:PATH",
    "lastfm1k:PATH",
    "table:FILE[:TITLES]",
    "recbole:FOLDER",
    "gru4rec:FILE[:TEST]",
    "srgnn:TRAIN:TEST",
)


def read_source(
    source: str,
    *,
    strict: bool = False,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    quoted: bool = True,
    unescape: bool = False,
) -> Interactions:
    """Reads raw data.

    Args:
        source: one of :data:`FORMS`.
        strict: whether the first bad row is an error.
        columns: of a table, what a column is for → its name.
        encoding: of a table.
        quoted: whether a table has csv's quotes.
        unescape: whether `&amp;` and the like in Amazon's titles become letters.

    Raises:
        ValueError: the source has none of the known forms, or a file is damaged.
    """
    kind, *paths = source.split(":")
    expected = {form.partition(":")[0]: form.count(":") for form in FORMS}
    least = 2 if kind == "srgnn" else 1
    if kind not in expected or not least <= len(paths) <= expected[kind] or not all(paths):
        raise ValueError(f"--source is {source!r}; expected one of {', '.join(FORMS)}")
    first, second = pathlib.Path(paths[0]), pathlib.Path(paths[1]) if len(paths) > 1 else None
    if kind.startswith("amazon"):
        return amazon.load_amazon(first, second, year=int(kind[-4:]), unescape=unescape, strict=strict)
    if kind == "table":
        return tables.load_table(first, second, columns=columns, encoding=encoding, quoted=quoted, strict=strict)
    if kind == "gru4rec":
        return gru4rec.load_gru4rec(first, second, strict=strict)
    if kind == "srgnn" and second is not None:
        return srgnn.load_srgnn(first, second, strict=strict)
    load = {
        "hetrec2011": hetrec.load_hetrec,
        "movielens": movielens.load_movielens,
        "lastfm1k": lastfm.load_lastfm,
        "recbole": recbole.load_recbole,
    }[kind]
    return load(first, strict=strict)
