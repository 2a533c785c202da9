"""Teachers that cost nothing for a run's selected sessions: recorded, simulated, conventional and neighbor lists."""

from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data.readers import registry
from alkd_jax.llm.teachers import ConventionalTeacher, ReplayTeacher, SimulatedTeacher, Teacher

from .llm_settings import sessions_to_rank
from .settings import Settings


def load_recorded(settings: Settings, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """Reads the recorded lists for replay.

    Args:
        settings: of the run.
        dataset: of the run.

    Returns:
        The lists, and a report of what was read and repaired.
    """
    if settings.rankings is not None:
        recorded = ReplayTeacher.from_file(
            settings.rankings, num_items=dataset.num_items, catalogue=dataset.fingerprint
        ).recorded
        return recorded, {"file": settings.rankings.name, "lists_read": len(recorded)}
    source = registry.parse_source(settings.data)
    return alkd.data.load_released_rankings(
        source.path, source.name, repair=settings.mode != "released", dataset=dataset
    )


def rank_candidates(settings: Settings, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """Ranks the candidates in the run's `candidates.jsonl` by the settings' teacher.

    Args:
        settings: of the run.
        dataset: of the run.

    Returns:
        The rankings, and the teacher's report; see `Teacher.rank`.
    """
    teacher: Teacher
    recorded_report: dict[str, Any] = {}
    name = settings.resolved_teacher
    if name == "replay":
        recorded, recorded_report = load_recorded(settings, dataset)
        teacher = ReplayTeacher(recorded, missing="skip")
    elif name == "simulated":
        teacher = SimulatedTeacher(dataset.titles, settings.seed, settings.accuracy)
    elif name == "conventional":
        teacher = ConventionalTeacher()
    else:
        teacher = ReplayTeacher(
            baselines.held_out_lists(
                baselines.co_occurrence, dataset.train_sequences, dataset.num_items, dataset.train, 25
            )
        )
    rankings, report = teacher.rank(*sessions_to_rank(settings.out, dataset))
    return rankings, recorded_report | report


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
