"""Whether a file has the columns that its reader needs."""

from collections.abc import Collection, Mapping, Sequence

from alkd_jax.errors import shown


class MissingColumnError(ValueError):
    """A file lacks a column.

    Attributes:
        purposes: of the missing column; one column for any of them would do.
    """

    def __init__(self, message: str, purposes: Sequence[str]) -> None:
        super().__init__(message)
        self.purposes = tuple(purposes)


def check_columns(
    place: str,
    found: Sequence[str],
    present: Collection[str],
    columns: Mapping[str, Sequence[str]],
    *,
    optional: Collection[str],
    one_of: Sequence[str] = (),
    hint: str = "",
) -> None:
    """Refuses a file that lacks a column.

    Args:
        place: file and line of the columns' names.
        found: the names of the file's columns.
        present: the purposes for which there is a column.
        columns: purpose of a column → the names it may have.
        optional: purposes for which a column may be missing.
        one_of: optional purposes for at least one of which there has to be a column.
        hint: what else may be wrong with the file.

    Raises:
        MissingColumnError: a column is missing; the error lists the columns that are there.
    """
    names = shown(", ".join(found), width=200)
    for purpose, accepted in columns.items():
        if purpose not in present and purpose not in optional:
            raise MissingColumnError(f"{place}: columns are {names}; expected {' or '.join(accepted)}{hint}", [purpose])
    if one_of and not set(one_of) & set(present):
        accepted = [name for purpose in one_of for name in columns[purpose]]
        raise MissingColumnError(
            f"{place}: columns are {names}, so there is {' and '.join(f'no {purpose}' for purpose in one_of)} column; "
            f"expected {' or '.join(accepted)}{hint}",
            one_of,
        )
