"""The teachers that rank a run's selected sessions, by name: recorded, simulated and other lists, or a user's own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data.readers import registry
from alkd_jax.llm.teachers import ConventionalTeacher, ReplayTeacher, SimulatedTeacher, Teacher, raw_rankings
from alkd_jax.registry import Registry, accepts

from . import llm_settings

if TYPE_CHECKING:
    from .settings import Settings

Report: TypeAlias = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TeacherEntry:
    """A teacher that `--teacher` names.

    Attributes:
        lists: what its lists are, in words, where a teacher is to be chosen.
        title: whose lists they are, for tables and reports.
        rank: function of settings and dataset that ranks the run's candidates; it returns the rankings and a report,
            see `Teacher.rank`.
        from_candidates: whether the lists are made of the candidates, so that the hit rate by chance is known.
        asks_llm: whether the lists are answers of a language model, given now or recorded before; None where that is
            not known. Lists of others cost nothing, and no table may name them after a language model.
    """

    lists: str
    title: str
    rank: Callable[["Settings", alkd.Dataset], tuple[alkd.Rankings, Report]]
    from_candidates: bool = True
    asks_llm: bool | None = False


def load_recorded(settings: "Settings", dataset: alkd.Dataset) -> tuple[alkd.Rankings, Report]:
    """Reads the recorded lists for replay.

    Args:
        settings: of the run.
        dataset: of the run.

    Returns:
        The lists, and a report of what was read and repaired.
    """
    if settings.rankings is not None and raw_rankings.has_raw_ids(settings.rankings):
        read = raw_rankings.load_raw_rankings(settings.rankings, dataset, min_valid=settings.min_valid)
        return read.rankings, {"file": settings.rankings.name} | read.report
    if settings.rankings is not None:
        recorded = ReplayTeacher.from_file(
            settings.rankings, num_items=dataset.num_items, catalogue=dataset.fingerprint
        ).recorded
        in_training = np.isin(recorded.session_id, dataset.train.session_id)
        return recorded.take(in_training), {
            "file": settings.rankings.name,
            "lists_read": len(recorded),
            "lists_used": int(in_training.sum()),
            "lists_refused": {"session not in training": int((~in_training).sum())},
        }
    source = registry.parse_source(settings.data)
    return alkd.data.load_released_rankings(
        source.path, source.name, repair="lists" not in settings.rules, dataset=dataset
    )


def rank_candidates(teacher: Teacher, settings: "Settings", dataset: alkd.Dataset) -> tuple[alkd.Rankings, Report]:
    """Ranks the candidates in the run's `candidates.jsonl`."""
    return teacher.rank(*llm_settings.sessions_to_rank(settings.out, dataset))


def replay(settings: "Settings", dataset: alkd.Dataset) -> tuple[alkd.Rankings, Report]:
    """Looks up recorded lists; the report also says what was read."""
    recorded, recorded_report = load_recorded(settings, dataset)
    rankings, report = rank_candidates(ReplayTeacher(recorded, missing="skip"), settings, dataset)
    return rankings, recorded_report | report


def simulated(settings: "Settings", dataset: alkd.Dataset) -> tuple[alkd.Rankings, Report]:
    """Ranks by titles."""
    teacher = SimulatedTeacher(dataset.titles, settings.seed, settings.accuracy)
    return rank_candidates(teacher, settings, dataset)


def neighbor(settings: "Settings", dataset: alkd.Dataset) -> tuple[alkd.Rankings, Report]:
    """Lists the items that co-occur with a session's items in other sessions."""
    lists = baselines.held_out_lists(
        baselines.method("co_occurrence"), dataset.train_sequences, dataset.num_items, dataset.train, 25
    )
    return rank_candidates(ReplayTeacher(lists), settings, dataset)


def outside(
    settings: "Settings", dataset: alkd.Dataset, *, name: str, make: Callable[[alkd.Dataset], Any]
) -> tuple[alkd.Rankings, Report]:
    """Ranks with a user's teacher.

    Args:
        settings: of the run.
        dataset: of the run.
        name: of the teacher.
        make: function of the dataset, or a class, that returns the teacher.

    Raises:
        ValueError: it returns no teacher, or the teacher returns something else than rankings and a report.
    """
    teacher = make(dataset)
    if not accepts(getattr(teacher, "rank", None), 2):
        raise ValueError(f"--teacher {name} made a {type(teacher).__name__}; expected rank(sessions, candidates) in it")
    answer = rank_candidates(teacher, settings, dataset)
    is_pair = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)
    if not (is_pair and isinstance(answer[0], alkd.Rankings) and {"asked", "missing"} <= answer[1].keys()):
        raise ValueError(
            f"--teacher {name} ranked as {type(answer).__name__}; "
            "expected a pair of Rankings and a report with 'asked' and 'missing'"
        )
    return answer


def _adopt(name: str, found: Any) -> TeacherEntry | None:
    """Returns the teacher of a user's class or function of the dataset."""
    rank = functools.partial(outside, name=name, make=found)
    return TeacherEntry("lists of your own", f"lists of {name}", rank, asks_llm=None) if accepts(found, 1) else None


TEACHERS = Registry[TeacherEntry](
    "--teacher",
    {
        "replay": TeacherEntry(
            "recorded lists, with --rankings FILE", "recorded lists", replay, from_candidates=False, asks_llm=True
        ),
        "simulated": TeacherEntry("lists simulated from titles, without a language model", "simulated LLM", simulated),
        "openai": TeacherEntry(
            "a language model over HTTP",
            "language model",
            lambda settings, ds: llm_settings.stored_rankings(settings.out, ds),
            asks_llm=True,
        ),
        "conventional": TeacherEntry(
            "the recommender's own lists",
            "recommender teacher in place of an LLM",
            functools.partial(rank_candidates, ConventionalTeacher()),
        ),
        "neighbor": TeacherEntry(
            "co-occurrence lists", "co-occurrence in place of an LLM", neighbor, from_candidates=False
        ),
    },
    "a class or function that takes the dataset and returns a teacher with rank(sessions, candidates)",
    _adopt,
)
"""Name → teacher that may rank the selected sessions."""


def title_of(teacher: str) -> str:
    """Returns whose lists a run has, for tables and reports: "simulated LLM, no language model", for instance."""
    entry = TEACHERS.find(teacher)
    return f"{entry.title}, no language model" if entry.asks_llm is False else entry.title


def fill_with_candidates(recorded: alkd.Rankings, sessions: alkd.Sessions, candidates: np.ndarray) -> np.ndarray:
    """Appends candidates to recorded lists, up to the number of candidates.

    Args:
        recorded: lists of some of the sessions.
        sessions: N sessions.
        candidates: ``[N, C]`` items, best first; 0 fills a short row.

    Returns:
        ``[N, C]`` the recorded items of each session, then its candidates that are not among them; 0 fills a short row.
    """
    lists = dict(zip(recorded.session_id.tolist(), recorded.items.tolist(), strict=True))
    filled = np.zeros_like(candidates)
    for row, session_id in enumerate(np.asarray(sessions.session_id).tolist()):
        distinct = dict.fromkeys([*lists.get(session_id, []), *candidates[row].tolist()])
        items = [item for item in distinct if item != alkd.PAD][: candidates.shape[1]]
        filled[row, : len(items)] = items
    return filled
