"""The names of a table's columns, as an option of commands that read tables."""


def parse_columns(text: str) -> dict[str, str]:
    """Returns purpose → name of a column.

    Args:
        text: such as ``user=listener,item=track``; empty for the usual names.

    Raises:
        ValueError: the text has another form, or names a purpose twice.
    """
    columns: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, name = part.partition("=")
        if not equals or not name or key in columns:
            raise ValueError(
                f"--columns is {text!r}; expected PURPOSE=NAME pairs of distinct purposes: user=listener,item=track"
            )
        columns[key] = name
    return columns
