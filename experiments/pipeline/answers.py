"""The items that a teacher is to rank for some sessions, and its lists for them before the paid stage."""

import dataclasses
import pathlib
import tempfile
from typing import TYPE_CHECKING

import numpy as np

import alkd_jax as alkd
from alkd_jax.llm.teachers import replay

from . import teachers

if TYPE_CHECKING:
    from .run import RunContext


def candidates_of(run: "RunContext", sessions: alkd.Sessions) -> alkd.Rankings:
    """Returns the items that the teacher is to rank for each session: the recommender's top 50, or recorded lists."""
    candidates = run.candidates(sessions)
    if run.settings.candidates != "recorded":
        return candidates
    recorded = teachers.load_recorded(run.settings, run.dataset)[0]
    items = teachers.fill_with_candidates(recorded, sessions, np.asarray(candidates.items))
    return alkd.Rankings.from_top_k(sessions.session_id, items)


def answers_at_once(run: "RunContext", sessions: alkd.Sessions, name: str) -> alkd.Rankings:
    """Returns a teacher's lists for sessions while others are still being selected.

    Args:
        run: a run with a trained teacher.
        sessions: training sessions.
        name: of the selection that reads the lists, for errors.

    Raises:
        ValueError: the teacher is a language model, whose lists are bought after the selection, or it has no list for
            any of the sessions.
    """
    if run.settings.resolved_teacher == "openai":
        raise ValueError(
            f"--methods {name} reads lists while it selects, and those of --teacher openai are bought afterwards; "
            "expected another teacher, such as recorded lists with --rankings FILE"
        )
    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.replace(run.settings, out=pathlib.Path(folder))
        replay.save_rankings(settings.out / "candidates.jsonl", candidates_of(run, sessions))
        rankings = teachers.TEACHERS.find(settings.resolved_teacher).rank(settings, run.dataset)[0]
    if len(rankings) == 0:
        raise ValueError(f"--teacher {settings.resolved_teacher} has lists for none of {len(sessions)} sessions")
    return rankings
