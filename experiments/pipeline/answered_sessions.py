"""The sessions that `experiments.recommend` answers, the training sessions of its methods, and the catalogue."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Int32, Int64

import alkd_jax as alkd
from alkd_jax.data.catalogue import number_items
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.readers import registry
from alkd_jax.data.recipes import prepare_by
from alkd_jax.data.session_names import name_sessions
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import SessionLog, sessionize
from alkd_jax.data.sessions import take_sequences
from alkd_jax.types import PAD

_TRAIN, _TEST = 0, 2


@dataclasses.dataclass(frozen=True)
class AnsweredSessions:
    """M sessions with T items of a catalogue; id 0 marks an item that is not in it.

    Attributes:
        sequences: the sessions with all their items, and their times where these are known.
        session_ids: ``[M]`` raw ids of the sessions.
    """

    sequences: alkd.Sequences
    session_ids: tuple[str, ...]

    @property
    def num_unknown(self) -> int:
        """The number of items that are not in the catalogue."""
        return int(np.count_nonzero(np.asarray(self.sequences.items) == PAD))


@dataclasses.dataclass(frozen=True)
class TrainAndTest:
    """The training sessions of a source and the sessions of its test part.

    Attributes:
        name: name of the data.
        item_ids: V + 1 raw ids, the first empty.
        train: the training sessions.
        test: the sessions to answer.
    """

    name: str
    item_ids: tuple[str, ...]
    train: alkd.Sequences
    test: AnsweredSessions


def of_dataset(source: str) -> TrainAndTest:
    """Reads a dataset; its test sessions are answered with all their items."""
    dataset = registry.read(source)
    held_out = dataset.test_sequences
    names = dataset.session_ids
    ids = tuple(str(number) if names is None else names[number] for number in np.asarray(held_out.session_id).tolist())
    return TrainAndTest(
        dataset.name, dataset.item_ids, dataset.train_sequences, AnsweredSessions(held_out.sequences, ids)
    )


def of_raw_data(source: str, recipe: str | None) -> TrainAndTest:
    """Reads raw data and makes their training and test sessions.

    Args:
        source: source string of interactions.
        recipe: name of a recipe. None takes a source that is split into training and test as it is: nothing is
            filtered, repeats stay, sessions have any length; every other source is made by the recipe of its kind.

    Raises:
        ValueError: the source or the recipe is unknown, or a file is damaged.
    """
    parsed = registry.parse_source(source, Interactions)
    log = registry.read_interactions(source)
    if recipe is None and log.split is not None:
        return _as_given(log)
    prepared = prepare_by(parsed.recipe(recipe), log)
    rows = np.repeat(np.arange(3), prepared.sizes)
    return TrainAndTest(
        prepared.name,
        prepared.item_ids,
        take_sequences(_timed(prepared), np.flatnonzero(rows == _TRAIN)),
        _named(_timed(prepared), prepared.session_ids, np.flatnonzero(rows == _TEST)),
    )


def of_new_sessions(
    source: str,
    item_ids: tuple[str, ...],
    *,
    columns: Mapping[str, str] | None = None,
    time_format: str | None = None,
) -> AnsweredSessions:
    """Reads sessions from raw data, all of which are answered; items outside the catalogue become 0.

    Args:
        source: source string of interactions, whose sessions are those of the file, or a user's sequence where it has
            none.
        item_ids: V + 1 raw ids of the catalogue, the first empty.
        columns: purpose of a column → its name, for tables.
        time_format: form of the times of tables.
    """
    log = registry.read_interactions(source, columns=columns, time_format=time_format)
    rules, sessions = _all_sessions(log)
    numbers = _numbers(log.item_ids, item_ids)
    names = name_sessions(log, rules, sessions.user, sessions.time[sessions.offsets[:-1]], sessions.session)
    return AnsweredSessions(_sequences(numbers[sessions.item], sessions.offsets, sessions.time, log), names)


def renumbered(sessions: AnsweredSessions, item_ids: tuple[str, ...], catalogue: tuple[str, ...]) -> AnsweredSessions:
    """Returns sessions by the numbers of another catalogue; items outside it become 0.

    Args:
        sessions: the sessions.
        item_ids: raw ids of their numbers, the first empty.
        catalogue: raw ids of the new numbers, the first empty.
    """
    items = _numbers(item_ids, catalogue)[np.asarray(sessions.sequences.items)]
    return dataclasses.replace(sessions, sequences=dataclasses.replace(sessions.sequences, items=items))


def _numbers(item_ids: tuple[str, ...], catalogue: tuple[str, ...]) -> Int32[np.ndarray, " V1"]:
    """Returns the number of each raw id in a catalogue, 0 where it is not there."""
    number_of = {item_id: number for number, item_id in enumerate(catalogue) if number}
    return np.array([number_of.get(item_id, PAD) for item_id in item_ids], np.int32)


def _as_given(log: Interactions) -> TrainAndTest:
    rules, sessions = _all_sessions(log)
    numbered = number_items(log, sessions, untitled="keep", min_length=1)
    names = name_sessions(log, rules, numbered.user, numbered.time[numbered.offsets[:-1]], numbered.session)
    sequences = _sequences(numbered.items, numbered.offsets, numbered.time, log)
    train, test = (np.flatnonzero(numbered.split == part) for part in (_TRAIN, _TEST))
    of_train = {names[row] for row in train.tolist()}
    # A test session whose id a training session has, too, is told from it by a prefix, which is not in the file.
    given = tuple(name if (raw := name.removeprefix("test:")) not in of_train else raw for name in names)
    return TrainAndTest(log.name, numbered.item_ids, take_sequences(sequences, train), _named(sequences, given, test))


def _all_sessions(log: Interactions) -> tuple[SessionRules, SessionLog]:
    """Returns every session of a source, unfiltered."""
    boundary = "user" if log.session is None else "given"
    rules = SessionRules(boundary=boundary, min_length=1, max_length=None, duplicates="keep")
    return rules, sessionize(log, rules, keep_single=True)


def _named(sequences: alkd.Sequences, names: tuple[str, ...] | None, rows: Int[np.ndarray, " M"]) -> AnsweredSessions:
    ids = tuple(str(row) if names is None else names[row] for row in rows.tolist())
    return AnsweredSessions(take_sequences(sequences, rows), ids)


def _sequences(
    items: Int32[np.ndarray, " T"], offsets: Int64[np.ndarray, " N1"], time: Int64[np.ndarray, " T"], log: Interactions
) -> alkd.Sequences:
    """Returns sessions with their times; a source without times has row numbers in their place, which are left out."""
    return alkd.Sequences(items, offsets, time if log.has_times else None)


def _timed(prepared: Prepared) -> alkd.Sequences:
    return dataclasses.replace(prepared.sequences, time=prepared.time if prepared.has_times else None)
