"""Downloads a public dataset after showing its terms of use; resumes where an earlier attempt stopped.

    python -m experiments.download --name hetrec2011 --out raw --agree

Names: hetrec2011, ml-1m, ml-32m, lastfm1k, amazon2014-games, amazon2018-games, amazon2023-games.
"""

import pathlib
from typing import Annotated

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from alkd_jax.checks import check_one_of
from alkd_jax.data.download import PUBLIC_DATASETS, download

from .pipeline import calls, light_options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, console, print_line


def run(name: str, out: pathlib.Path, *, agree: bool = False) -> None:
    """Shows the terms of use and downloads the files if the user agrees to them."""
    check_one_of("--name", name, PUBLIC_DATASETS)
    dataset = PUBLIC_DATASETS[name]
    for address in dataset.files.values():
        print_line(address)
    print_line(f"Terms: {dataset.terms}")
    if not agree:
        print_line("Nothing was downloaded; add --agree if you accept the terms.")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {file: bar.add_task(file, total=None) for file in dataset.files}
        digests = download(
            name, out, progress=lambda file, done, total: bar.update(tasks[file], completed=done, total=total)
        )
    for file, digest in digests.items():
        print_line(f"{out / file}  sha256 {digest}")
    source = dataset.source.replace("DIR", str(out))
    print_line(f"{calls.call_of('prepare')} --source {source} --out DIR")


def main() -> None:
    """Entry point."""

    def command(
        name: Annotated[str, light_options.choices(PUBLIC_DATASETS)], out: pathlib.Path, agree: bool = False
    ) -> None:
        """Downloads one dataset.

        Args:
            name: name of the dataset.
            out: folder for the files.
            agree: accept the terms of use; without it they are only shown.
        """
        run(name, out, agree=agree)

    with cli_errors():
        parse(command, "download", __doc__)


if __name__ == "__main__":
    main()
