"""Recommends items for many sessions, by a counting or linear method or by a shipped student, and writes the lists.

    python -m experiments.recommend --source gru4rec:TRAIN:TEST --method sr --options '{"steps": 20}' --out lists.jsonl
    python -m experiments.recommend --data prepared:data/mine --method vsknn --sessions csv:new.csv --out lists.jsonl
    python -m experiments.recommend --model shipped --sessions csv:new.csv --k 20 --out lists.jsonl

A method is fitted on the training sessions of `--source` or `--data`; a shipped student needs no training. The test
sessions of the same data are answered, or those of `--sessions`. A line of the file is
`{"session": "raw id", "position": 0, "items": ["raw id", ...], "scores": [...]}`: what is recommended once the items up
to that position of the session, from 0, are known.

The catalogue is that of the data, test part included, or that of the student. Items outside it are skipped. Where a
method has nothing to say of as many items as a list has, the most popular ones of the others follow with score 0.
"""

import dataclasses
import json
import pathlib
from typing import Annotated

from alkd_jax import baselines
from alkd_jax.baselines.registry import METHODS
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.data.readers import registry
from alkd_jax.errors import shown
from alkd_jax.evaluation.protocol import SEEN
from alkd_jax.io import replacing
from alkd_jax.serving.recommender import Recommender
from alkd_jax.types import Dataset

from .pipeline import answered_sessions, batch_answers
from .pipeline.answered_sessions import AnsweredSessions, TrainAndTest
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, stage_bar
from .pipeline.options import choices
from .pipeline.shipped import model_folder
from .pipeline.table_columns import parse_columns
from .pipeline.train_options import json_options

POSITIONS = batch_answers.POSITIONS


@dataclasses.dataclass(frozen=True)
class Recommend:
    """Options of the command.

    Attributes:
        out: file of the lists.
        source: raw data; where they are split into training and test, all their sessions are taken as they are,
            whatever their length, with repeated items.
        recipe: recipe by which the raw data are prepared instead.
        data: prepared data, in place of raw ones.
        model: folder of a shipped student, or of a run of `train`, in place of a method.
        sessions: raw data whose sessions are answered, in place of the test sessions.
        columns: names of a table's columns, such as item=track, joined by commas; the purposes are user, item, time,
            session and title.
        time_format: form of the times of tables and of RecBole's and GRU4Rec's files: s, ms, us or ns since 1970, or a
            format such as %Y%m%d; by default ISO 8601, or the unit that follows from the size of a number.
        options: options of the method as JSON, by name.
        k: list length.
        overwrite: replace a file that is there.
    """

    out: pathlib.Path
    source: str | None = None
    recipe: str | None = None
    data: str | None = None
    method: Annotated[
        str | None, choices(METHODS, own=True, help="counting or linear method, see docs/own_parts.md for your own.")
    ] = None
    options: str = "{}"
    model: pathlib.Path | None = None
    sessions: str | None = None
    columns: str = ""
    time_format: str | None = None
    positions: Annotated[
        str, choices(POSITIONS, help='"last" answers a session once, after its last item, "all" after every item.')
    ] = "last"
    seen: Annotated[
        str, choices(SEEN, help='"exclude" leaves out the known items of the session, "keep" ranks all items.')
    ] = "exclude"
    k: int = 20
    overwrite: bool = False

    def check(self) -> None:
        """Refuses options that do not go together.

        Raises:
            ValueError: an option is missing, unknown or out of range, or the file exists.
        """
        check_one_of("--positions", self.positions, tuple(POSITIONS))
        check_one_of("--seen", self.seen, tuple(SEEN))
        check_count(1, **{"--k": self.k})
        if (self.method is None) == (self.model is None):
            raise ValueError(f"--method is {self.method} and --model {self.model}; expected one of them")
        if self.source is not None and self.data is not None:
            raise ValueError("--source and --data go not together; expected one of them")
        if self.source is None and self.data is None and (self.model is None or self.sessions is None):
            raise ValueError("neither --source nor --data is given; expected one of them, or --model with --sessions")
        if self.source is not None and registry.parse_source(self.source).reader.result is Dataset:
            raise ValueError(f"--source is {shown(self.source)}, which is prepared; expected it as --data")
        if self.sessions is None and (self.columns or self.time_format is not None):
            raise ValueError("--columns and --time-format describe the file of --sessions, which is not given")
        if self.recipe is not None and self.source is None:
            raise ValueError(f"--recipe is {shown(self.recipe)} without --source; expected raw data with a recipe")
        if self.out.exists() and not self.overwrite:
            raise ValueError(f"{self.out} exists; expected a new file, or --overwrite")


def recommend(args: Recommend) -> None:
    """Fits the method or loads the student, and writes the lists."""
    args.check()
    chosen = json_options(args.options, '{"steps": 20}')
    if args.model is not None and chosen:
        raise ValueError(f"--options is {shown(args.options)}, but a shipped student has none; expected no options")
    if args.model is not None:
        student = Recommender.load(model_folder(args.model))
        sessions = sessions_of_catalogue(args, student.item_ids)
        answerer: batch_answers.Answerer = batch_answers.ByStudent(student, args.k, args.seen)
    else:
        read = read_training(args)
        sessions = read.test if args.sessions is None else new_sessions(args, read.item_ids)
        method = baselines.method(str(args.method), **chosen)
        with stage_bar(f"fitting {args.method}"):
            counts = baselines.count(read.train, len(read.item_ids) - 1)
            scorer = method(counts)
        answerer = batch_answers.ByScorer(scorer, counts, read.item_ids, args.k, args.seen)
    write_lists(args, answerer, sessions)


def read_training(args: Recommend) -> TrainAndTest:
    """Reads the training and test sessions of the data."""
    if args.data is not None:
        return answered_sessions.of_dataset(args.data)
    return answered_sessions.of_raw_data(str(args.source), args.recipe)


def sessions_of_catalogue(args: Recommend, item_ids: tuple[str, ...]) -> AnsweredSessions:
    """Returns the sessions that a shipped student answers, as numbers of its own catalogue."""
    if args.sessions is not None:
        return new_sessions(args, item_ids)
    read = read_training(args)
    return answered_sessions.renumbered(read.test, read.item_ids, item_ids)


def new_sessions(args: Recommend, item_ids: tuple[str, ...]) -> AnsweredSessions:
    """Reads the sessions of `--sessions` as numbers of a catalogue."""
    columns, time_format = parse_columns(args.columns), args.time_format
    return answered_sessions.of_new_sessions(str(args.sessions), item_ids, columns=columns, time_format=time_format)


def write_lists(args: Recommend, answerer: batch_answers.Answerer, sessions: AnsweredSessions) -> None:
    """Writes a line for every answer, and prints how many there are."""
    num_lists = num_empty = 0
    total = len(sessions.session_ids) if args.positions == "last" else len(sessions.sequences.items)
    with stage_bar("lists", total=total) as bar, replacing(args.out) as partial, open(partial, "w") as file:
        for history, answer in batch_answers.answers(answerer, sessions, args.positions):
            line = {"session": sessions.session_ids[history.session], "position": history.position}
            file.write(json.dumps(line | answer._asdict()) + "\n")
            num_lists += 1
            num_empty += not answer.items
            if num_lists % 100 == 0:
                bar.update(num_lists)
    print_line(
        f"{args.out}: {num_lists:,} lists for {len(sessions.session_ids):,} sessions, {num_empty:,} of them empty; "
        f"{sessions.num_unknown:,} of {len(sessions.sequences.items):,} items are not in the catalogue and were skipped"
    )


def main() -> None:
    """Runs the command."""
    with cli_errors():
        recommend(parse(Recommend, "recommend", __doc__))


if __name__ == "__main__":
    main()
