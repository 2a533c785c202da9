"""Fetches a public data set, after showing its terms; goes on where an earlier attempt stopped.

    python -m experiments.download --name hetrec2011 --out raw --agree

Names: hetrec2011, ml-1m, ml-32m, lastfm1k, amazon2014-games, amazon2018-games, amazon2023-games.
"""

import pathlib

import tyro
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from alkd_jax.data.download import PUBLIC_SETS, download

from .reporting.console import cli_errors, console


def run(name: str, out: pathlib.Path, *, agree: bool = False) -> None:
    """Shows the terms and, where they are agreed to, fetches the files."""
    if name not in PUBLIC_SETS:
        raise ValueError(f"--name is {name!r}; expected one of {', '.join(PUBLIC_SETS)}")
    wanted = PUBLIC_SETS[name]
    for address in wanted.files.values():
        console.print(address, highlight=False, markup=False)
    console.print(f"Terms: {wanted.terms}", highlight=False, markup=False)
    if not agree:
        console.print("Nothing was fetched; add --agree where you accept the terms.")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {file: bar.add_task(file, total=None) for file in wanted.files}
        digests = download(
            name, out, progress=lambda file, done, total: bar.update(tasks[file], completed=done, total=total)
        )
    for file, digest in digests.items():
        console.print(f"{out / file}  sha256 {digest}", highlight=False, markup=False, soft_wrap=True)
    source = wanted.source.replace("DIR", str(out))
    line = f"python -m experiments.prepare --source {source} --out DIR"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point."""

    def ask(name: str, out: pathlib.Path, agree: bool = False) -> None:
        """Fetches one data set.

        Args:
            name: of the data set.
            out: folder for the files.
            agree: to the terms; without it they are only shown.
        """
        run(name, out, agree=agree)

    with cli_errors():
        tyro.cli(ask, description=__doc__)


if __name__ == "__main__":
    main()
