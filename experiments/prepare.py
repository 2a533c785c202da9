"""Makes a prepared dataset from raw data; every experiment takes it as `--data prepared:DIR`.

    python -m experiments.prepare --source hetrec2011:PATH --out data/ml
    python -m experiments.prepare --source amazon2018:REVIEWS:META --out data/games
    python -m experiments.prepare --source table:plays.csv --columns user=who,item=track --boundary gap --out data/own
    python -m experiments.prepare --source csv --path "any: name [1].txt" --separator ";" --out data/own
    python -m experiments.prepare --source userseq:Beauty.txt --recipe s3rec --out data/beauty
    python -m experiments.prepare --source movielens:PATH --boundary user --split time-events --out data/ml-time
    python -m experiments.prepare --source gru4rec:FILE --split windows:5 --out data/windows

A recipe gives the defaults of all options. That of most sources reproduces the authors' released data: one session per
user and UTC day, 5 to 19 interactions, repeats dropped, blocks of 60, 20 and 20 percent. `--split block-exchanged` also
exchanges validation and test as in the released HetRec file. Each of several windows is a dataset of its own, such as
`--data prepared:data/windows/window-1`. DIR/manifest.json records all options and counts.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tyro
from rich.table import Table

from alkd_jax.data.catalogue import UNTITLED_OPTIONS
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import PART_NAMES, Prepared
from alkd_jax.data.prepared_folder import save_prepared
from alkd_jax.data.readers import registry
from alkd_jax.data.readers.recbole import check_recbole, write_recbole
from alkd_jax.data.recipes import RECIPES, Comparison, Recipe, prepare_by
from alkd_jax.data.session_rules import BOUNDARIES, DUPLICATES, TIES, USERS, SessionRules
from alkd_jax.data.splits import SPLITS, TARGETS, UNSEEN_OPTIONS, VALIDATIONS, SplitRules
from alkd_jax.data.times import format_time, parse_time
from alkd_jax.data.windows import prepare_windows, save_windows
from alkd_jax.errors import printable, shown

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, console, print_line, stage_bar
from .pipeline.table_columns import parse_columns

_SOURCE = f"raw data: {options.sources(Interactions)}."
_WINDOWS = "windows:"


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Options of the preparation of one dataset. An option that is not given has the value of the recipe.

    Attributes:
        path: a file or folder of the source, which then has only the other arguments, as in --source csv --path FILE;
            may be given several times. A path given so may contain colons.
        out: folder to write.
        recipe: a published preparation, or one of your own as package.module:attribute; by default s3rec for userseq,
            that of GRU4Rec's authors for yoochoose, diginetica and retailrocket, else alkdrec.
        columns: names of a table's columns, such as item=track, joined by commas; the purposes are user, item, time,
            session and title.
        encoding: encoding of a table.
        separator: separator of a table; by default a comma, or a tab for tsv.
        quote: the character that quotes a field of a table; "" if there is none.
        time_format: form of the times of tables and of RecBole's and GRU4Rec's files: s, ms, us or ns since 1970, or a
            format such as %Y%m%d; by default ISO 8601, or the unit that follows from the size of a number.
        unescape: whether HTML entities such as &amp; in Amazon's titles are decoded.
        strict: stop at the first bad row and report its file and line.
        boundary: what ends a session: day, gap, given, or user for one sequence per user; with alkdrec the default is
            given if the source has sessions, else day.
        time_zone: time zone of the calendar day.
        gap_minutes: minutes of inactivity that end a session.
        min_length: smallest number of interactions in a session; alkdrec has 5.
        max_length: largest number of interactions in a session; alkdrec has 19, 0 sets no limit.
        duplicates: which occurrences of an item stay in a session: first, last, adjacent or keep.
        count_duplicates: whether lengths count repeats that are dropped, as in the released data.
        ties: order of interactions at equal times: file, id, hash or random.
        users: order of users: file or id.
        events: kinds of events that stay in sessions, such as --events view; all kinds determine where one ends.
        resolution: milliseconds to whose multiples times are rounded down; 1000 for seconds.
        min_item_count: smallest number of interactions of an item; rarer items are dropped.
        repeat_filter: whether rare items and short sessions are dropped until nothing changes.
        recent: share of the sessions that stay, the most recent, such as 0.25.
        split: block, block-exchanged, random, user, time, last-days, last-session, given, time-events, leave-one-out,
            time-start, time-end, day-order, or windows:NUMBER, which makes consecutive windows of equal duration, each
            split by time-events.
        fractions: shares of training, validation and test: of sessions, of events for time-events, of the duration of a
            window for windows.
        days: number of days of the test split: on the calendar for last-days, before the last event for time-start and
            time-end.
        validation: validation of time-events: time, user or last-item.
        validation_time: time of the cut before validation of time-events, time-start and time-end, such as 2014-09-28
            or 2014-09-28T12:00:00.
        test_time: time of the cut before test.
        gap_days: days before each cut of time-events whose events are neither trained on nor predicted.
        targets: events that a session cut by time has to predict: all, last, first or random.
        refit: whether training of leave-one-out and of time-start includes validation.
        recent_training: share of the training sessions that are trained on, the most recent.
        unseen: keep or drop items of validation and test that training does not contain.
        untitled: drop or keep items that are not in the file of titles.
        seed: random seed of ties and splits.
        recbole: also write RecBole's atomic files, into this folder.
    """

    source: Annotated[str, tyro.conf.arg(metavar="SOURCE", help=_SOURCE)]
    out: pathlib.Path
    path: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    recipe: Annotated[str | None, light_options.choices(RECIPES, own=True)] = None
    columns: str = ""
    encoding: str = "utf-8"
    separator: str | None = None
    quote: str = '"'
    time_format: str | None = None
    unescape: bool = False
    strict: bool = False
    boundary: Annotated[str | None, light_options.choices(BOUNDARIES)] = None
    time_zone: str | None = None
    gap_minutes: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    duplicates: Annotated[str | None, light_options.choices(DUPLICATES)] = None
    count_duplicates: bool | None = None
    ties: Annotated[str | None, light_options.choices(TIES)] = None
    users: Annotated[str | None, light_options.choices(USERS)] = None
    events: tuple[str, ...] | None = None
    resolution: int | None = None
    min_item_count: int | None = None
    repeat_filter: bool | None = None
    recent: float | None = None
    split: Annotated[str | None, light_options.choices((*SPLITS, f"{_WINDOWS}NUMBER"))] = None
    fractions: tuple[float, float, float] | None = None
    days: int | None = None
    validation: Annotated[str | None, light_options.choices(VALIDATIONS)] = None
    validation_time: str | None = None
    test_time: str | None = None
    gap_days: float | None = None
    targets: Annotated[str | None, light_options.choices(TARGETS)] = None
    refit: bool | None = None
    recent_training: float | None = None
    unseen: Annotated[str | None, light_options.choices(UNSEEN_OPTIONS)] = None
    untitled: Annotated[str | None, light_options.choices(UNTITLED_OPTIONS)] = None
    seed: int | None = None
    recbole: pathlib.Path | None = None


def run(args: Preparation) -> dict[str, Any]:
    """Reads the raw data, makes sessions, splits them, and writes the folder.

    Returns:
        The content of `manifest.json`.
    """
    source = registry.parse_source(args.source, Interactions, paths=args.path)
    num_windows = _num_windows(args)
    recipe = source.recipe(args.recipe)
    _with_asked(recipe, args)
    with stage_bar(f"reading {' '.join((args.source, *args.path))}"):
        log = registry.read_interactions(
            args.source,
            paths=args.path,
            strict=args.strict,
            columns=parse_columns(args.columns),
            separator=args.separator,
            quote=args.quote,
            encoding=args.encoding,
            time_format=args.time_format,
            unescape=args.unescape,
        )
    used = _with_asked(recipe.for_log(log), args)
    if used.sessions.boundary != "given" and not log.has_times:
        print_line(
            f"warning: {log.name} has no time column, so that all rows of a user are one session in the order of the "
            "file; name a column of times with --columns time=NAME",
            style="yellow",
        )
    with stage_bar(f"making sessions from {len(log):,} interactions"):
        if num_windows:
            windows = prepare_windows(log, used.sessions, used.split, num_windows=num_windows, untitled=used.untitled)
            made = [used.described(window) for window in windows]
        else:
            made = [prepare_by(used, log)]
        arguments = {key: str(value) if isinstance(value, pathlib.Path) else value for key, value in vars(args).items()}
        made = [dataclasses.replace(part, options={**part.options, "asked": arguments}) for part in made]
        if args.recbole is not None:
            check_recbole(args.out.name, made[0])
        manifest = save_windows(args.out, made) if num_windows else save_prepared(args.out, made[0])
        if args.recbole is not None:
            write_recbole(args.recbole, args.out.name, made[0])
    if num_windows:
        _print_windows(made)
    else:
        _print_counts(made[0])
    folder = f"{args.out}/window-1" if num_windows else args.out
    print_line(f"{args.out}/manifest.json; use --data prepared:{folder}")
    return manifest


def _num_windows(args: Preparation) -> int:
    """Returns the number in `windows:NUMBER`, 0 for other splits."""
    if args.split is None or not args.split.startswith(_WINDOWS):
        return 0
    number = args.split.removeprefix(_WINDOWS)
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 10_000):
        raise ValueError(f"split is {shown(args.split)}; expected windows:NUMBER, such as windows:5")
    return int(number)


def _with_asked(recipe: Recipe, args: Preparation) -> Recipe:
    """Returns the recipe with the options that were given."""

    def asked(kind: type) -> dict[str, Any]:
        given = {field.name: getattr(args, field.name, None) for field in dataclasses.fields(kind)}
        return {name: value for name, value in given.items() if value is not None}

    session_options, split_options = asked(SessionRules), asked(SplitRules)
    if args.max_length == 0:
        session_options["max_length"] = None
    for name in ("validation_time", "test_time"):
        if name in split_options:
            split_options[name] = parse_time(name, split_options[name])
    split = recipe.split
    if args.split is not None:
        rule = "time-events" if _num_windows(args) else args.split
        # Other options of the recipe's split belong to its rule.
        split = SplitRules(rule, fractions=split.fractions, days=split.days, unseen=split.unseen, seed=split.seed)
    changed = dataclasses.replace(
        recipe,
        sessions=dataclasses.replace(recipe.sessions, **session_options),
        split=dataclasses.replace(split, **split_options),
        untitled=args.untitled or recipe.untitled,
    )
    if changed == recipe:
        return recipe
    return dataclasses.replace(changed, name=f"{recipe.name} with other options", published_parts={})


def _dropped_unseen(report: Mapping[str, Any]) -> dict[str, int]:
    """Returns what validation and test lost by `--unseen drop`; an event that both of them knew counts in each."""
    dropped = report.get("unseen_dropped")
    if dropped is None:
        return {}
    events = sum(dropped["events"].values()) + dropped["events_of_dropped_sessions"]
    return {"items": dropped["items"], "events": events, "sessions": sum(dropped["sessions"].values())}


def _print_counts(prepared: Prepared) -> None:
    report = prepared.report
    table = Table(title=printable(prepared.name), title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    session_counts, events, counts = report["sessionise"], report["account"]["events"], report["recipe"]["counts"]
    for name, count in (
        ("rows read", report["rows_read"]),
        ("bad rows", report["bad_rows"]["total"]),
        ("interactions read", report["interactions_read"]),
        ("… with the user and time of another", session_counts["tied_interactions"]),
        ("sessions found", session_counts["sessions_found"]),
        ("… too short", session_counts["sessions_dropped"]["too_short"]),
        ("… too long", session_counts["sessions_dropped"]["too_long"]),
        ("repeats dropped", session_counts["repeats_dropped"]),
        ("sessions", counts["sessions"]),
        ("items", counts["items"]),
        ("interactions", counts["interactions"]),
        *((f"… {name} sessions", size) for name, size in zip(PART_NAMES, prepared.sizes, strict=True)),
        ("events trained on", events["trained"]),
        ("events predicted in validation", events["validation_targets"]),
        ("events predicted in test", events["test_targets"]),
        ("events that are history only", events["history_only"]),
        *((f"events unused, {reason.replace('_', ' ')}", count) for reason, count in events["unused"].items() if count),
        *((f"… dropped with unseen items, {kind}", count) for kind, count in _dropped_unseen(report).items()),
        ("items that training does not contain", report["unseen"]["items"]),
        ("test targets that training does not contain", report["unseen"]["test_targets"]["unseen"]),
    ):
        table.add_row(name, f"{count:,}")
    console.print(table)
    unverified = " (unverified: never run on the data of the publication)" if report["recipe"]["unverified"] else ""
    print_line(f"recipe {report['recipe']['recipe']}{unverified}: {report['recipe']['statement']}")
    for comparison in report["recipe"]["comparisons"]:
        print_line(Comparison(**comparison).line())
    if report["leak_warning"]:
        print_line(f"warning: {report['leak_warning']}", style="yellow")
    for sample in report["bad_rows"]["samples"]:
        print_line(f"bad row: {sample}", style="yellow")


def _print_windows(windows: Sequence[Prepared]) -> None:
    for prepared in windows:
        counts, window = prepared.report["recipe"]["counts"], prepared.options["window"]
        sizes = ", ".join(f"{size:,} {name}" for name, size in zip(PART_NAMES, prepared.sizes, strict=True))
        unseen = prepared.report["unseen"]["test_targets"]
        print_line(
            f"{prepared.name}: from {format_time(window['first_time'])}, test from "
            f"{format_time(prepared.options['split']['test_time'])}, to {format_time(window['end_time'])}: "
            f"{counts['sessions']:,} sessions ({sizes}), {counts['items']:,} items, {counts['interactions']:,} "
            f"interactions; {unseen['unseen']:,} of {unseen['of']:,} test targets are not in training"
        )
        if prepared.report["leak_warning"]:
            print_line(f"warning: {prepared.report['leak_warning']}", style="yellow")
    print_line(f"recipe {windows[0].report['recipe']['recipe']}: {windows[0].report['recipe']['statement']}")


def main() -> None:
    """Entry point."""
    with cli_errors():
        run(parse(Preparation, "prepare", __doc__))


if __name__ == "__main__":
    main()
