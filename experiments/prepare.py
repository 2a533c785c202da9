"""Raw data in, a prepared data set out, which every experiment takes as `--data prepared:DIR`.

    python -m experiments.prepare --source hetrec2011:PATH --out data/ml
    python -m experiments.prepare --source amazon2018:REVIEWS:META --out data/games
    python -m experiments.prepare --source table:plays.csv --columns user=who,item=track --boundary gap --out data/own

The defaults are the recipe that gives the authors' released data: one session per user and UTC day, 5 to 19
interactions, repeats dropped, blocks of 60, 20 and 20 percent. `--split block-exchanged` also repeats the exchange of
validation and test in the released HetRec file. The manifest in DIR says every option and every count.
"""

import dataclasses
import pathlib
from typing import Any

import tyro
from rich.table import Table

from alkd_jax.data.prepared import Prepared, prepare, save_prepared
from alkd_jax.data.readers.recbole import write_recbole
from alkd_jax.data.sessionize import SessionRules

from .pipeline.raw_sources import read_source
from .reporting.console import cli_errors, console


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is asked of one data set.

    Attributes:
        source: raw data: hetrec2011:PATH, amazon2014|2018|2023:REVIEWS[:META], movielens:PATH, lastfm1k:PATH,
            table:FILE[:TITLES], recbole:FOLDER, gru4rec:FILE[:TEST] or srgnn:TRAIN:TEST.
        out: folder to write.
        columns: of a table, such as user=listener,item=track,time=at,session=visit,title=name.
        encoding: of a table.
        quoted: whether a double quote in a table begins a quoted field.
        unescape: whether &amp; and the like in Amazon's titles become letters.
        strict: stop at the first bad row, with its file and line.
        boundary: day, gap or given; given where the source has sessions, else day.
        time_zone: of the calendar day.
        gap_minutes: of inactivity that end a session.
        min_length: interactions of a session at least.
        max_length: interactions of a session at most.
        duplicates: first, last, adjacent or keep.
        count_duplicates: whether lengths count repeats that are dropped, as in the released data.
        ties: order of equal times: file, id, hash or random.
        users: order of users: file or id.
        split: block, block-exchanged, random, user, time, last-days, last-session or given.
        fractions: of training, validation and test.
        days: of the test split, for last-days.
        untitled: drop or keep items that the titles' file does not have.
        seed: of everything random.
        recbole: also write RecBole's atomic files, into this folder.
    """

    source: str
    out: pathlib.Path
    columns: str = ""
    encoding: str = "utf-8"
    quoted: bool = True
    unescape: bool = False
    strict: bool = False
    boundary: str | None = None
    time_zone: str = "UTC"
    gap_minutes: float = 30.0
    min_length: int = 5
    max_length: int = 19
    duplicates: str = "first"
    count_duplicates: bool = True
    ties: str = "file"
    users: str = "file"
    split: str | None = None
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    days: int = 1
    untitled: str = "drop"
    seed: int = 0
    recbole: pathlib.Path | None = None


def run(asked: Preparation) -> dict[str, Any]:
    """Reads, makes sessions, splits, and writes the folder.

    Returns:
        What `manifest.json` holds.
    """
    wanted = {field.name: getattr(asked, field.name) for field in dataclasses.fields(SessionRules)}
    rules = SessionRules(**wanted | {"boundary": asked.boundary or "day"})
    columns = _parse_columns(asked.columns)
    with console.status(f"reading {asked.source}"):
        log = read_source(
            asked.source,
            strict=asked.strict,
            columns=columns,
            encoding=asked.encoding,
            quoted=asked.quoted,
            unescape=asked.unescape,
        )
    if asked.boundary is None and log.session is not None:
        rules = dataclasses.replace(rules, boundary="given")
    split = asked.split or ("given" if log.split is not None else "block")
    with console.status(f"{len(log):,} interactions into sessions"):
        prepared = prepare(
            log,
            rules,
            split=split,
            fractions=asked.fractions,
            days=asked.days,
            seed=asked.seed,
            untitled=asked.untitled,
        )
        told = {key: str(value) if isinstance(value, pathlib.Path) else value for key, value in vars(asked).items()}
        prepared = dataclasses.replace(prepared, options={**prepared.options, "asked": told})
        manifest = save_prepared(asked.out, prepared)
        if asked.recbole is not None:
            write_recbole(asked.recbole, asked.out.name, prepared)
    _show(prepared, manifest)
    console.print(f"{asked.out}/manifest.json; use it as --data prepared:{asked.out}", highlight=False, markup=False)
    return manifest


def _parse_columns(text: str) -> dict[str, str]:
    columns = {}
    for part in filter(None, text.split(",")):
        key, equals, name = part.partition("=")
        if not equals or not name:
            raise ValueError(f"--columns is {text!r}; expected such as user=listener,item=track")
        columns[key] = name
    return columns


def _show(prepared: Prepared, manifest: dict[str, Any]) -> None:
    report = manifest["report"]
    table = Table(title=prepared.name, title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    made = report["sessionise"]
    for name, count in (
        ("rows read", report["rows_read"]),
        ("bad rows", report["bad_rows"]["total"]),
        ("interactions read", report["interactions_read"]),
        ("… sharing user and time with another", made["tied_interactions"]),
        ("sessions found", made["sessions_found"]),
        ("… too short", made["sessions_dropped"]["too_short"]),
        ("… too long", made["sessions_dropped"]["too_long"]),
        ("repeats dropped", made["repeats_dropped"]),
        ("sessions", manifest["sessions"]),
        ("items", manifest["items"]),
        ("interactions", manifest["interactions"]),
        *((f"… {name} sessions", manifest["split"][name]) for name in ("train", "validation", "test")),
    ):
        table.add_row(name, f"{count:,}")
    console.print(table)
    for sample in report["bad_rows"]["samples"]:
        console.print(f"bad row: {sample}", highlight=False, markup=False, style="yellow")


def main() -> None:
    """Entry point."""
    with cli_errors():
        run(tyro.cli(Preparation, description=__doc__))


if __name__ == "__main__":
    main()
