"""Tab-separated files for other programs: what their ids and names can be, and several files written as one.

The programs read the files with pandas, which takes a double quote at the start of a field as csv does, and some words
as missing values.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence

from alkd_jax.data.text.text_files import UNDECODABLE
from alkd_jax.errors import shown, writing
from alkd_jax.io import replacing_all

_MISSING = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null,\\N".split(",")
)
"""What pandas, or this library, reads as a missing value, with quotes or without."""

_SEPARATORS = {"\t": "tab", "\r": "carriage return", "\n": "line end", " ": "blank"}


def check_ids(ids: Iterable[str], *, separators: str = "\t\r\n") -> None:
    """Checks, before anything is written, that every item id comes back from a file.

    Args:
        ids: identifiers of the source.
        separators: characters that separate ids, fields or rows of the file; tab, line ends and blank are known.

    Raises:
        ValueError: an id is empty, occurs twice, has a separator, is a word for a missing value, or is refused by
            :func:`check_encodable`.
    """
    names = ", ".join(_SEPARATORS[separator] for separator in separators)
    known: set[str] = set()
    for item in ids:
        if not item or not set(separators).isdisjoint(item):
            raise ValueError(f"item id is {shown(item)}; expected an id that is not empty and has no {names}")
        if item in _MISSING:
            raise ValueError(f"item id is {shown(item)}; expected another, for it is read as a missing value")
        if item in known:
            raise ValueError(f"item id is {shown(item)} for two items; expected distinct ids")
        check_encodable("item id", item)
        known.add(item)


def check_encodable(name: str, text: str) -> None:
    """Checks that a text comes back from a file in UTF-8.

    Args:
        name: what the text is.
        text: any text.

    Raises:
        ValueError: the text has half a surrogate pair, or U+FDD0, which readers take for damage.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" or character == UNDECODABLE for character in text):
        raise ValueError(f"{name} is {shown(text)}; expected text without half a surrogate pair and without U+FDD0")


def check_file_name(name: str) -> None:
    """Checks that a name can be that of a file in a folder.

    Raises:
        ValueError: the name is empty, is a folder's own name or its parent's, or has a slash or a null character.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"name is {shown(name)}; expected the name of a file, without a folder")
    check_encodable("name", name)


def quoted(field: str, *, always: bool = False) -> str:
    """Returns a field as csv writes it: between double quotes where it has one, a tab or a line end, or always."""
    if not always and {'"', "\t", "\r", "\n"}.isdisjoint(field):
        return field
    return '"' + field.replace('"', '""') + '"'


def write_tables(folder: pathlib.Path, tables: Mapping[str, Iterable[Sequence[object]]]) -> None:
    """Writes files of tab-separated rows into a folder, all of them or none.

    Args:
        folder: is created if it does not exist.
        tables: file name → rows, the column names first; text fields are quoted where they have to be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in tables]
    with replacing_all(paths) as partials:
        for path, partial, rows in zip(paths, partials, tables.values(), strict=True):
            with writing(path, partial=partial), partial.open("w", encoding="utf-8", newline="") as file:
                file.writelines("\t".join(map(str, row)) + "\n" for row in rows)
