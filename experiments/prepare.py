"""Makes a prepared dataset from raw data; every experiment takes it as `--data prepared:DIR`.

    python -m experiments.prepare --source hetrec2011:PATH --out data/ml
    python -m experiments.prepare --source amazon2018:REVIEWS:META --out data/games
    python -m experiments.prepare --source table:plays.csv --columns user=who,item=track --boundary gap --out data/own
    python -m experiments.prepare --source csv --path "any: name [1].txt" --separator ";" --out data/own

The defaults are the recipe that reproduces the authors' released data: one session per user and UTC day, 5 to 19
interactions, repeats dropped, blocks of 60, 20 and 20 percent. `--split block-exchanged` also exchanges validation and
test as in the released HetRec file. DIR/manifest.json records all options and counts.
"""

import dataclasses
import pathlib
from typing import Annotated, Any

import tyro
from rich.table import Table

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import Prepared, prepare
from alkd_jax.data.prepared_folder import save_prepared
from alkd_jax.data.readers import registry
from alkd_jax.data.readers.recbole import check_recbole, write_recbole
from alkd_jax.data.sessionize import BOUNDARIES, DUPLICATES, TIES, SessionRules
from alkd_jax.data.splits import SPLITS
from alkd_jax.errors import printable

from .pipeline import options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, console, print_line, status

_SOURCE = f"raw data: {options.sources(Interactions)}."


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Options of the preparation of one dataset.

    Attributes:
        path: a file or folder of the source, which then has only the other arguments, as in --source csv --path FILE;
            may be given several times. A path given so may contain colons.
        out: folder to write.
        columns: names of a table's columns, such as user=listener,item=track,time=at,session=visit,title=name.
        encoding: encoding of a table.
        separator: separator of a table; by default a comma, or a tab for tsv.
        quote: the character that quotes a field of a table; "" if there is none.
        time_format: form of the times of tables and of RecBole's and GRU4Rec's files: s, ms, us or ns since 1970, or a
            format such as %Y%m%d; by default ISO 8601, or the unit that follows from the size of a number.
        unescape: whether HTML entities such as &amp; in Amazon's titles are decoded.
        strict: stop at the first bad row and report its file and line.
        boundary: what ends a session: day, gap or given; the default is given if the source has sessions, else day.
        time_zone: time zone of the calendar day.
        gap_minutes: minutes of inactivity that end a session.
        min_length: smallest number of interactions in a session.
        max_length: largest number of interactions in a session.
        duplicates: which occurrences of an item stay in a session: first, last, adjacent or keep.
        count_duplicates: whether lengths count repeats that are dropped, as in the released data.
        ties: order of interactions at equal times: file, id, hash or random.
        users: order of users: file or id.
        split: block, block-exchanged, random, user, time, last-days, last-session or given.
        fractions: shares of training, validation and test.
        days: number of days of the test split, for last-days.
        untitled: drop or keep items that are not in the file of titles.
        seed: random seed of ties and splits.
        recbole: also write RecBole's atomic files, into this folder.
    """

    source: Annotated[str, tyro.conf.arg(metavar="SOURCE", help=_SOURCE)]
    out: pathlib.Path
    path: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    columns: str = ""
    encoding: str = "utf-8"
    separator: str | None = None
    quote: str = '"'
    time_format: str | None = None
    unescape: bool = False
    strict: bool = False
    boundary: Annotated[str | None, options.choices(BOUNDARIES)] = None
    time_zone: str = "UTC"
    gap_minutes: float = 30.0
    min_length: int = 5
    max_length: int = 19
    duplicates: Annotated[str, options.choices(DUPLICATES)] = "first"
    count_duplicates: bool = True
    ties: Annotated[str, options.choices(TIES)] = "file"
    users: Annotated[str, options.choices(("file", "id"))] = "file"
    split: Annotated[str | None, options.choices(SPLITS)] = None
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    days: int = 1
    untitled: Annotated[str, options.choices(("drop", "keep"))] = "drop"
    seed: int = 0
    recbole: pathlib.Path | None = None


def run(args: Preparation) -> dict[str, Any]:
    """Reads the raw data, makes sessions, splits them, and writes the folder.

    Returns:
        The content of `manifest.json`.
    """
    rule_options = {field.name: getattr(args, field.name) for field in dataclasses.fields(SessionRules)}
    rules = SessionRules(**rule_options | {"boundary": args.boundary or "day"})
    with status(f"reading {' '.join((args.source, *args.path))}"):
        log = registry.read_interactions(
            args.source,
            paths=args.path,
            strict=args.strict,
            columns=_parse_columns(args.columns),
            separator=args.separator,
            quote=args.quote,
            encoding=args.encoding,
            time_format=args.time_format,
            unescape=args.unescape,
        )
    rules = dataclasses.replace(rules, boundary=args.boundary or log.default_boundary)
    split = args.split or log.default_split
    with status(f"making sessions from {len(log):,} interactions"):
        prepared = prepare(
            log,
            rules,
            split=split,
            fractions=args.fractions,
            days=args.days,
            seed=args.seed,
            untitled=args.untitled,
        )
        arguments = {key: str(value) if isinstance(value, pathlib.Path) else value for key, value in vars(args).items()}
        prepared = dataclasses.replace(prepared, options={**prepared.options, "asked": arguments})
        if args.recbole is not None:
            check_recbole(args.out.name, prepared)
        manifest = save_prepared(args.out, prepared)
        if args.recbole is not None:
            write_recbole(args.recbole, args.out.name, prepared)
    _print_counts(prepared, manifest)
    print_line(f"{args.out}/manifest.json; use --data prepared:{args.out}")
    return manifest


def _parse_columns(text: str) -> dict[str, str]:
    columns = {}
    for part in filter(None, text.split(",")):
        key, equals, name = part.partition("=")
        if not equals or not name:
            raise ValueError(f"--columns is {text!r}; expected PURPOSE=NAME pairs such as user=listener,item=track")
        columns[key] = name
    return columns


def _print_counts(prepared: Prepared, manifest: dict[str, Any]) -> None:
    report = manifest["report"]
    table = Table(title=printable(prepared.name), title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    session_counts = report["sessionise"]
    for name, count in (
        ("rows read", report["rows_read"]),
        ("bad rows", report["bad_rows"]["total"]),
        ("interactions read", report["interactions_read"]),
        ("… with the user and time of another", session_counts["tied_interactions"]),
        ("sessions found", session_counts["sessions_found"]),
        ("… too short", session_counts["sessions_dropped"]["too_short"]),
        ("… too long", session_counts["sessions_dropped"]["too_long"]),
        ("repeats dropped", session_counts["repeats_dropped"]),
        ("sessions", manifest["sessions"]),
        ("items", manifest["items"]),
        ("interactions", manifest["interactions"]),
        *((f"… {name} sessions", manifest["split"][name]) for name in ("train", "validation", "test")),
    ):
        table.add_row(name, f"{count:,}")
    console.print(table)
    for sample in report["bad_rows"]["samples"]:
        print_line(f"bad row: {sample}", style="yellow")


def main() -> None:
    """Entry point."""
    with cli_errors():
        run(parse(Preparation, "prepare", __doc__))


if __name__ == "__main__":
    main()
