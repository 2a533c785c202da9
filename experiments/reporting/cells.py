"""Names out of files in tables: shown as they are, and never taken as Markdown, HTML, LaTeX or a formula."""

from alkd_jax.errors import printable

_FORMULA = ("=", "+", "-", "@")


def plain(name: str) -> str:
    r"""Returns a name on one line without control characters; LaTeX tables escape what LaTeX would interpret."""
    return printable(name)


def spreadsheet(name: str) -> str:
    """Returns a name for a cell of csv that no spreadsheet takes as a formula.

    Example:
        >>> spreadsheet("=1+1")
        "'=1+1"
    """
    text = printable(name)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
