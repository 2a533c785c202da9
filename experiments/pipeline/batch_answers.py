"""Lists of recommendations for many histories, by a counting or linear method or by a shipped student."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int

from alkd_jax import baselines
from alkd_jax.baselines.lists import best_items
from alkd_jax.baselines.queries import BATCH_SIZE, break_ties, call_scorer
from alkd_jax.serving.recommender import Recommender
from alkd_jax.types import PAD

from .answered_sessions import AnsweredSessions

POSITIONS = ("last", "all")
"""After which items of a session it is answered."""


class History(NamedTuple):
    """What is known when a session is answered.

    Attributes:
        session: row of the session.
        position: index of the last known item in the session.
        items: numbers of the known items in the catalogue, in time order.
        time: time of the last known item in milliseconds since 1970; None where it is not known.
    """

    session: int
    position: int
    items: Int[np.ndarray, " L"]
    time: int | None


class Answer(NamedTuple):
    """The raw ids of a list, best first, and their scores."""

    items: list[str]
    scores: list[float]


Answerer: TypeAlias = Callable[[Sequence[History]], list[Answer]]
"""Function of some histories that returns an answer for each."""


def histories(sessions: AnsweredSessions, positions: str) -> Iterator[History]:
    """Yields the histories of all sessions, in their order."""
    sequences = sessions.sequences
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    for session, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        for last in range(start if positions == "all" else end - 1, end):
            known = items[start : last + 1]
            time = None if sequences.time is None else int(sequences.time[last])
            yield History(session, last - start, known[known != PAD], time)


def answers(answerer: Answerer, sessions: AnsweredSessions, positions: str) -> Iterator[tuple[History, Answer]]:
    """Yields every history with its answer, some histories at a time."""
    remaining = histories(sessions, positions)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        yield from zip(batch, answerer(batch), strict=True)


@dataclasses.dataclass(frozen=True)
class ByScorer:
    """Answers by a scorer of :mod:`alkd_jax.baselines`; of equal scores the more popular item comes first.

    Attributes:
        scorer: the fitted method.
        counts: the counts of the training sessions.
        item_ids: ``[V + 1]`` raw ids.
        k: list length.
        seen: "exclude" leaves out the known items, "keep" ranks all items.
    """

    scorer: baselines.Scorer
    counts: baselines.Counts
    item_ids: tuple[str, ...]
    k: int
    seen: str

    def __call__(self, batch: Sequence[History]) -> list[Answer]:
        """Returns an answer for each history."""
        times = [history.time for history in batch if history.time is not None]
        rows = [history.items.tolist() for history in batch]
        known = baselines.Histories.from_rows(rows, times if len(times) == len(batch) else None)
        scores = call_scorer(self.scorer, self.counts, known)
        ranked = break_ties(self.counts, scores)
        found = []
        for history, row_scores, row in zip(batch, scores, ranked, strict=True):
            if self.seen == "exclude":
                row[history.items] = -np.inf
            best = best_items(row, min(self.k, len(row) - 1))
            best = best[best != PAD]
            found.append(Answer([self.item_ids[item] for item in best.tolist()], row_scores[best].tolist()))
        return found


@dataclasses.dataclass(frozen=True)
class ByStudent:
    """Answers by a shipped student, whose catalogue numbers the items of the histories.

    Attributes:
        student: the student.
        k: list length.
        seen: as of :class:`ByScorer`.
    """

    student: Recommender
    k: int
    seen: str

    def __call__(self, batch: Sequence[History]) -> list[Answer]:
        """Returns an answer for each history; an empty one where no item is known."""
        known = [[self.student.item_ids[item] for item in history.items.tolist()] for history in batch]
        found = self.student.recommend_batch(known, self.k, seen=self.seen)
        return [Answer([one.item_id for one in answer], [one.score for one in answer]) for answer in found]
