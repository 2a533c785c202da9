"""Names out of files in tables: shown as they are, and never taken as Markdown, HTML, LaTeX or a formula."""

import re

from alkd_jax.errors import printable

_MARKDOWN = re.compile(r"[\\`*<>|&~#$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)")
"""A bracket before a target makes a link; an underscore within a word is an ordinary character."""

_FORMULA = ("=", "+", "-", "@")


def plain(name: str) -> str:
    r"""Returns a name on one line without control characters; LaTeX tables escape what LaTeX would interpret."""
    return printable(name)


def markdown(name: str) -> str:
    r"""Returns a name for a line or a table of Markdown, where neither punctuation nor HTML acts as such.

    Example:
        >>> markdown("a|b<i>")
        'a\\|b\\<i\\>'
    """
    return _MARKDOWN.sub(r"\\\g<0>", printable(name))


def spreadsheet(name: str) -> str:
    """Returns a name for a cell of csv that no spreadsheet takes as a formula.

    Example:
        >>> spreadsheet("=1+1")
        "'=1+1"
    """
    text = printable(name)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
