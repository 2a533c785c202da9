"""Teachers with one interface: sessions and candidates in, rankings and an account out.

A teacher sees items, mask and id of a session and never the target. It answers for as many sessions as it can, each
once; who is missing stands in the account.
"""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from alkd_jax.llm import exchange
from alkd_jax.llm.batch import Batches
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect_sync, run_sync
from alkd_jax.llm.parsing import read_answer
from alkd_jax.llm.prompts import Question, RankingPrompt, Template, label, render
from alkd_jax.llm.teachers import simulated
from alkd_jax.llm.teachers.replay import load_rankings, replay
from alkd_jax.types import PAD, Rankings, Sessions

FAULTS = ("duplicate", "unknown", "short", "prose", "truncated", "refused", "empty")
"""What a simulated teacher can be told to do wrong."""

_NEXT_ORDER = 2**32


class Teacher(Protocol):
    """Whoever ranks candidates."""

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Ranks each session's candidates.

        Args:
            sessions: M sessions; targets are not read.
            candidates: the items to rank; 0 fills a short row.

        Returns:
            Rankings, with the sessions that have an answer, in the order asked; and an account in plain JSON values
            with at least "asked" and "missing", the ids of the others.
        """


@dataclasses.dataclass(frozen=True)
class OnlineTeacher:
    """A language model asked over HTTP.

    Attributes:
        client: whom, and on what terms; its store keeps the answers.
        titles: V + 1 titles.
        template: the kind of item, and hints.
        k: length of the lists.
        seed: of the labels' order.
        options: for `collect`.
    """

    client: Client
    titles: Sequence[str]
    template: Template
    k: int = 25
    seed: int = 0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """See `Teacher`."""
        account = collect_sync(self.client, self.questions(sessions, candidates), **self.options)
        lists = stored_lists(self.client, self.questions(sessions, candidates))
        return _answered(sessions, lists, self.k, account.as_json())

    def questions(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> Iterator[Question]:
        """The questions, one by one."""
        return build_questions(sessions, candidates, self.titles, self.template, k=self.k, seed=self.seed)


@dataclasses.dataclass(frozen=True)
class BatchTeacher(OnlineTeacher):
    """A language model asked through the Batch API; `options` are those of `Batches.run`."""

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """See `Teacher`; returns when every batch is at an end."""
        counts = run_sync(Batches(self.client).run(self.questions(sessions, candidates), **self.options))
        lists = stored_lists(self.client, self.questions(sessions, candidates))
        return _answered(sessions, lists, self.k, counts)


@dataclasses.dataclass(frozen=True)
class ReplayTeacher:
    """Lists that are known beforehand: recorded ones, or those of a training-free recommender.

    A neighbour teacher is `ReplayTeacher(neighbors.held_out_lists(…))`, whose lists never saw the session they are for.

    Attributes:
        recorded: the lists.
        missing: "raise" or "skip", for sessions without one.
    """

    recorded: Rankings
    missing: str = "raise"

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, num_items: int, catalogue: str | None = None, missing: str = "raise"
    ) -> "ReplayTeacher":
        """Reads a file of rankings, or of exported answers.

        Args:
            path: the file.
            num_items: V.
            catalogue: fingerprint of the dataset; answers exported for another one are refused.
            missing: "raise" or "skip".

        Raises:
            ValueError: a line is damaged, was changed, or is about another catalogue; names file and line.
        """
        recorded = load_rankings(path, num_items=num_items)
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                record = json.loads(line)
                told = record.pop("check", None)
                if told is not None and told != exchange.checksum(record):
                    raise ValueError(f"{path}:{number}: changed since it was exported")
                about = record.get("catalogue", catalogue)
                if catalogue is not None and about != catalogue:
                    raise ValueError(f"{path}:{number}: about catalogue {about!r:.20}, expected {catalogue!r:.20}")
        return cls(recorded, missing)

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """See `Teacher`; the candidates are not looked at.

        Raises:
            ValueError: a session has no list, where that is not to be skipped.
        """
        lists, missing = replay(self.recorded, np.asarray(sessions.session_id))
        if len(missing) and self.missing == "raise":
            raise ValueError(f"recorded lists: none for session {missing[0]}, nor for {len(missing) - 1} others")
        return lists, {"asked": len(sessions), "missing": missing.tolist()}


@dataclasses.dataclass(frozen=True)
class SimulatedTeacher:
    """Answers from titles, in words that are read like a language model's, with mistakes in chosen shares.

    Attributes:
        titles: V + 1 titles.
        template: the kind of item.
        seed: from 0.
        accuracy: probability of a faithful order, from 0 to 1.
        faults: one of `FAULTS` → its share of the answers.
        k: length of the lists.
        min_valid: entries from which a short list is usable.
    """

    titles: Sequence[str]
    template: Template
    seed: int = 0
    accuracy: int | float = 0.8
    faults: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    k: int = 25
    min_valid: int = 20

    def __post_init__(self) -> None:
        for name, share in self.faults.items():
            if name not in FAULTS or not 0 <= share <= 1:
                raise ValueError(f"faults: {name!r} with share {share}, expected 0 to 1 of {', '.join(FAULTS)}")
        if sum(self.faults.values()) > 1:
            raise ValueError(f"faults: shares add up to {sum(self.faults.values())}, expected at most 1")

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """See `Teacher`."""
        ranked = simulated.rank_by_titles(
            self.seed, sessions, candidates, self.titles, num_ranked=self.k, accuracy=self.accuracy
        )
        statuses: collections.Counter[str] = collections.Counter()
        repairs: collections.Counter[str] = collections.Counter()
        lists = {}
        asked = build_questions(sessions, candidates, self.titles, self.template, k=self.k, seed=self.seed)
        for question, items, mask in zip(asked, np.asarray(ranked.items), np.asarray(ranked.mask), strict=True):
            names = [label(question.candidates.index(item)) for item in items[mask].tolist()]
            content, finish_reason = _spoilt(names, self._fault(question.session_id))
            reading = read_answer(question, content, finish_reason=finish_reason, min_valid=self.min_valid)
            statuses[reading.status] += 1
            repairs.update(set(reading.repairs))
            if reading.usable:
                lists[question.session_id] = reading.items
        account = {"statuses": dict(statuses), "repairs": dict(repairs), "accuracy": self.accuracy}
        return _answered(sessions, lists, self.k, account)

    def _fault(self, session: int) -> str:
        """What goes wrong in a session's answer; depends on the seed and the session alone."""
        drawn = np.random.default_rng([self.seed, session, 1]).random()
        for name, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                return name
        return ""


@dataclasses.dataclass(frozen=True)
class ConventionalTeacher:
    """The recommender that made the candidates: its own order (TR in the paper's Table 2).

    Attributes:
        k: length of the lists.
    """

    k: int = 25

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """See `Teacher`."""
        rows = zip(np.asarray(sessions.session_id).tolist(), candidates, strict=True)
        lists = {session: tuple(row[row > PAD][: self.k].tolist()) for session, row in rows}
        return _answered(sessions, lists, self.k, {})


def build_questions(
    sessions: Sessions,
    candidates: Int[np.ndarray, "M C"],
    titles: Sequence[str],
    template: Template,
    *,
    k: int = 25,
    seed: int = 0,
) -> Iterator[Question]:
    """Words one question after the other; reads no target.

    Sessions of the same items with the same candidates get different orders of labels, and so an answer each.
    """
    times: collections.Counter[int] = collections.Counter()
    rows = zip(np.asarray(sessions.session_id), np.asarray(sessions.items), np.asarray(sessions.mask), strict=True)
    for (session, items, mask), shown in zip(rows, candidates, strict=True):
        history = tuple(items[mask].tolist())
        prompt = RankingPrompt(int(session), history, tuple(shown[shown > PAD].tolist()), k)
        told = hash((history, frozenset(prompt.candidates)))
        yield render(prompt, template, titles, seed=seed + _NEXT_ORDER * times[told])
        times[told] += 1


def stored_lists(client: Client, questions: Iterable[Question]) -> dict[int, tuple[int, ...]]:
    """Session → items, of the usable answers in a client's store."""
    readings = client.readings(questions)
    return {question.session_id: read.items for question, _, read in readings if read is not None and read.usable}


def as_rankings(lists: Mapping[int, Sequence[int]], k: int) -> Rankings:
    """Rankings `[M, K]` of a mapping from session to items."""
    items = np.full((len(lists), k), PAD, np.int32)
    for row, listed in enumerate(lists.values()):
        items[row, : len(listed)] = listed
    return Rankings(np.array(list(lists), np.int32), items, items != PAD)


def _answered(
    sessions: Sessions, lists: Mapping[int, Sequence[int]], k: int, account: Mapping[str, Any]
) -> tuple[Rankings, dict[str, Any]]:
    asked = np.asarray(sessions.session_id).tolist()
    ranked = as_rankings({session: lists[session] for session in asked if session in lists}, k)
    missing = [session for session in asked if session not in lists]
    return ranked, {**account, "asked": len(asked), "missing": missing}


def _spoilt(names: Sequence[str], fault: str) -> tuple[str, str]:
    """The text of an answer with one fault, and its finish reason."""
    whole = json.dumps({"ranking": list(names)})
    if fault == "truncated":
        return whole[: len(whole) * 9 // 10], "length"
    texts = {
        "duplicate": json.dumps({"ranking": [*names[:-1], *names[:1]]}),
        "unknown": json.dumps({"ranking": [*names[:-1], "C99"]}),
        "short": json.dumps({"ranking": list(names[:-3])}),
        "prose": "My ranking:\n" + "\n".join(f"{n}. {name}" for n, name in enumerate(names, start=1)),
        "refused": "",
        "empty": "",
    }
    return texts.get(fault, whole), "content_filter" if fault == "refused" else "stop"
