"""The sessions of a run that a teacher is to rank, with their candidates, as a file for a model of the user's own."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax.io import write_text

from . import llm_settings


def write_questions(run: pathlib.Path, dataset: alkd.Dataset, out: pathlib.Path) -> int:
    """Writes a line for each session to rank; the file is complete or absent.

    Args:
        run: a run's folder, with candidates.
        dataset: of the run.
        out: the file.

    Returns:
        The number of lines.
    """
    lines = [json.dumps(line, ensure_ascii=False) for line in questions(run, dataset)]
    write_text(out, "".join(f"{line}\n" for line in lines))
    return len(lines)


def questions(run: pathlib.Path, dataset: alkd.Dataset) -> Iterator[dict[str, Any]]:
    """Yields the content of the lines.

    "session_id" is the session's number, and "session" its raw id where the data have one; "history" and "candidates"
    are lists of raw ids and titles, the history in time order and the candidates as the recommender ranks them.

    Args:
        run: a run's folder, with candidates.
        dataset: of the run.
    """
    sessions, candidates = llm_settings.sessions_to_rank(run, dataset)

    def shown_items(items: np.ndarray) -> list[dict[str, str]]:
        numbers = items[items > alkd.PAD].tolist()
        return [{"item": dataset.item_ids[item], "title": dataset.titles[item]} for item in numbers]

    for row, number in enumerate(np.asarray(sessions.session_id).tolist()):
        raw = {} if dataset.session_ids is None else {"session": dataset.session_ids[number]}
        history = shown_items(np.asarray(sessions.items[row]))
        yield {"session_id": number} | raw | {"history": history, "candidates": shown_items(candidates[row])}
