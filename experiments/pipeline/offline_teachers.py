"""Teachers that cost nothing: recorded, simulated, conventional and neighbour lists for a run's chosen sessions."""

from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.llm import teachers
from alkd_jax.llm.teachers import simulated

from .llm_settings import asked_sessions
from .settings import Settings
from .sources import parse_source


def recorded(settings: Settings, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """The recorded lists that replay reads, and what was repaired in them."""
    if settings.rankings is not None:
        file = teachers.ReplayTeacher.from_file(
            settings.rankings, num_items=dataset.num_items, catalogue=dataset.fingerprint
        )
        return file.recorded, {"file": settings.rankings.name, "lists_read": len(file.recorded)}
    source = parse_source(settings.data)
    return alkd.data.load_released_rankings(
        source.path, source.name, repair=settings.mode != "released", dataset=dataset
    )


def ranked(settings: Settings, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """What the settings' teacher says of the sessions in the run's `candidates.jsonl`, and its account."""
    sessions, candidates = asked_sessions(settings.out, dataset)
    if settings.ranker == "replay":
        lists, about = recorded(settings, dataset)
        rankings, account = teachers.ReplayTeacher(lists, missing="skip").rank(sessions, candidates)
        return rankings, about | account
    if settings.ranker == "simulated":
        rankings = simulated.rank_by_titles(
            settings.seed, sessions, candidates, dataset.titles, accuracy=settings.accuracy
        )
        return rankings, {"asked": len(sessions), "missing": [], "accuracy": settings.accuracy}
    if settings.ranker == "conventional":
        return teachers.ConventionalTeacher().rank(sessions, candidates)
    lists = baselines.held_out_lists(
        baselines.co_occurrence, dataset.train_sequences, dataset.num_items, dataset.train, 25
    )
    return teachers.ReplayTeacher(lists).rank(sessions, candidates)


def filled_up(recorded: alkd.Rankings, sessions: alkd.Sessions, candidates: np.ndarray) -> np.ndarray:
    """Recorded lists first, then the candidates not on them, as many as there were candidates; 0 fills a short row."""
    listed = dict(zip(recorded.session_id.tolist(), recorded.items.tolist(), strict=True))
    rows = np.zeros_like(candidates)
    for row, session in enumerate(np.asarray(sessions.session_id).tolist()):
        both = dict.fromkeys([*listed.get(session, []), *candidates[row].tolist()])
        kept = [item for item in both if item != alkd.PAD][: candidates.shape[1]]
        rows[row, : len(kept)] = kept
    return rows
