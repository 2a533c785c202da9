"""Compares published numbers with those computed here from the data: pass, or fail with the difference.

    python -m experiments.verify                                  # every entry
    python -m experiments.verify s3rec-beauty --data raw
    python -m experiments.verify esasrec-beauty --data raw --runs runs/esasrec-beauty

An entry is a recipe on the data of a publication, with its counts and the metrics of methods; the files are looked for,
at any depth, in the folders of --data. Counting methods are fitted here, released models are read, and the metrics of
trained models are those of finished runs in the folders of --runs, or else the stored ones of experiments.record. The
exit code is 0 if every number is within its tolerance, 1 if one is outside or a file is damaged, and 2 if data or runs
are not at hand. A name that there is not ends with 64.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import tyro

from alkd_jax.checks import check_one_of
from alkd_jax.data.readers import registry
from alkd_jax.data.readers.released import load_released
from alkd_jax.data.recipes import RECIPES, Comparison, prepare_by
from alkd_jax.data.text.source_files import find_file
from alkd_jax.evaluation import Protocol
from alkd_jax.types import Dataset

from .pipeline import light_options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .pipeline.exits import say
from .pipeline.published_numbers import Evaluated
from .pipeline.verify_entries import ENTRIES, Entry

WITHIN, OUTSIDE, NOT_AT_HAND, UNKNOWN_NAME = 0, 1, 2, 64
DATA = tuple(pathlib.Path(folder) for folder in ("data", "../shared/public-data", "../shared/alkdrec-release"))


def run(name: str | None, data: Sequence[pathlib.Path], runs: Sequence[pathlib.Path] = ()) -> int:
    """Verifies one entry, or all.

    Args:
        name: a key of :data:`ENTRIES`; None for all.
        data: folders that may have the files.
        runs: folders that may have finished runs.

    Returns:
        The exit code.
    """
    if name is not None:
        try:
            check_one_of("NAME", name, ENTRIES)
        except ValueError as error:
            say(f"error: {error}")
            return UNKNOWN_NAME
    codes = set()
    for entry in ENTRIES if name is None else (name,):
        try:
            codes.add(verify(entry, ENTRIES[entry], data, runs))
        except ValueError as error:
            print_line(f"{entry}: {error}: fail")
            codes.add(OUTSIDE)
    return worst(codes)


def worst(codes: set[int]) -> int:
    """Returns the exit code of several comparisons: a number outside its tolerance comes before missing data."""
    return OUTSIDE if OUTSIDE in codes else max(codes)


def verify(name: str, entry: Entry, data: Sequence[pathlib.Path], runs: Sequence[pathlib.Path]) -> int:
    """Prints each published number of an entry beside the one here, and returns the exit code."""
    found = {file: find(file, data) for file in entry.files}
    files = {file: path for file, path in found.items() if path is not None}
    if missing := [file for file in entry.files if file not in files]:
        print_line(
            f"{name}: not at hand: {', '.join(missing)}, from {entry.origin}; terms: {entry.terms}. Name the folder "
            "with --data"
        )
        return NOT_AT_HAND
    recipe, first = RECIPES.find(entry.recipe), files[entry.files[0]]
    print_line(f"{name}: recipe {recipe.name} on {first}; {recipe.reference}")
    dataset, comparisons = read(entry, files)
    if not comparisons and entry.with_counts and not entry.metrics:
        raise ValueError(f"{first}: recipe {recipe.name} has no published numbers of this name; expected {first.name}")
    for comparison in comparisons:
        print_line(f"  {comparison.line(entry.tolerance)}")
    codes = {WITHIN if comparison.is_within(entry.tolerance) else OUTSIDE for comparison in comparisons}
    evaluated = Evaluated(dataset, Protocol(seen=recipe.seen, targets=recipe.targets), files, runs)
    return worst({WITHIN} | codes | metric_codes(entry, evaluated))


def read(entry: Entry, files: Mapping[str, pathlib.Path]) -> tuple[Dataset, tuple[Comparison, ...]]:
    """Reads the data of an entry, and compares their counts with the published ones."""
    first = files[entry.files[0]]
    if entry.reader == "released":
        return load_released(first.parent.parent, first.parent.name), ()
    recipe = RECIPES.find(entry.recipe)
    paths = [str(path) for path in files.values()]
    prepared = prepare_by(recipe, registry.read_interactions(entry.reader, paths=paths))
    return prepared.dataset(), recipe.compare(prepared) if entry.with_counts else ()


def metric_codes(entry: Entry, evaluated: Evaluated) -> set[int]:
    """Prints the published metrics of an entry beside those here, and returns the exit codes."""
    codes, source = set(), None
    for published in entry.metrics:
        try:
            lines = published.compared(published.compute(evaluated))
        except FileNotFoundError as missing:
            print_line(f"  {published.method}: not at hand: {missing}")
            codes.add(NOT_AT_HAND)
            continue
        if published.source != source:
            source = published.source
            print_line(f"  {source}:")
        for line, within in lines:
            print_line(f"  {line}")
            codes.add(WITHIN if within else OUTSIDE)
    return codes


def find(name: str, folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """Returns the first file of a name in some folders, which need not exist."""
    for folder in folders:
        try:
            return find_file(folder, name).path
        except FileNotFoundError:
            continue
    return None


def main() -> None:
    """Entry point."""

    def command(
        name: Annotated[str | None, tyro.conf.Positional, light_options.choices(ENTRIES)] = None,
        data: tuple[pathlib.Path, ...] = DATA,
        runs: tuple[pathlib.Path, ...] = (pathlib.Path("runs"),),
    ) -> int:
        """Verifies published numbers.

        Args:
            name: what to verify; everything if it is left out.
            data: folders in which the files are looked for.
            runs: folders in which finished runs are looked for.
        """
        return run(name, data, runs)

    with cli_errors():
        sys.exit(parse(command, "verify", __doc__))


if __name__ == "__main__":
    main()
