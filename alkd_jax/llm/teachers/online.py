"""A language model behind an OpenAI-compatible server as a teacher, whose paid answers are in a store."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax.checks import check_count
from alkd_jax.io import finite_or_none
from alkd_jax.llm.agreement import fuse_rankings, mean_agreement
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import Estimate
from alkd_jax.llm.prompts import Question, RankingPrompt, Template, ranking_question, template_hash
from alkd_jax.llm.teachers.protocol import lists_to_rankings
from alkd_jax.llm.usage import UsageReport
from alkd_jax.types import PAD, Rankings, Sessions

_SEED_STEP, _SHUFFLE_STEP = 2**32, 2**48


@dataclasses.dataclass(frozen=True)
class OnlineTeacher:
    """A language model; `ask` sends the questions that have no answer yet, `rank` reads the answers and sends nothing.

    Attributes:
        client: endpoint, store, price, budget and limits.
        titles: V + 1 titles, the first of padding.
        template: words for the kind of item, and hints.
        k: length of the lists.
        seed: of the order of the labels.
        shuffles: number of questions about each session, which show its candidates in different orders; their lists are
            fused by reciprocal rank.
    """

    client: Client
    titles: Sequence[str]
    template: Template
    k: int = 25
    seed: int = 0
    shuffles: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError if there are no questions."""
        check_count(1, shuffles=self.shuffles)

    def questions(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> Iterator[Question]:
        """Yields the questions about each session, one about every session before the second about any."""
        for shuffle in range(self.shuffles):
            seed = self.seed + _SHUFFLE_STEP * shuffle
            yield from build_questions(sessions, candidates, self.titles, self.template, k=self.k, seed=seed)

    def estimate(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> Estimate:
        """Estimates what the answers that are not in the store will cost; sends nothing."""
        return self.client.estimate(self.questions(sessions, candidates))

    def ask(
        self,
        sessions: Sessions,
        candidates: Int[np.ndarray, "M C"],
        *,
        pilot: int = 16,
        on_progress: Callable[[UsageReport, Ledger], None] | None = None,
        after_pilot: Callable[[UsageReport], str | None] | None = None,
    ) -> UsageReport:
        """Asks the questions whose answers are not in the store; see `collect` for the options and the result."""
        questions = self.questions(sessions, candidates)
        return collect_sync(self.client, questions, pilot=pilot, on_progress=on_progress, after_pilot=after_pilot)

    def rank(self, sessions: Sessions, candidates: Int[np.ndarray, "M C"]) -> tuple[Rankings, dict[str, Any]]:
        """Reads the usable lists in the store; sends nothing and opens no connection.

        Args:
            sessions: M sessions; their targets are not read.
            candidates: the items to rank; 0 fills a short row.

        Returns:
            As `Teacher.rank`; the report also has "open", the ids of missing sessions that can still be asked, "model",
            "prompt_sha256" of the template, "statuses" and "repairs" of the answers, the store's "requests" and
            "tokens", and with several shuffles how far the lists of a session agree.
        """
        client = self.client
        lists: collections.defaultdict[int, list[Sequence[int]]] = collections.defaultdict(list)
        unusable: list[tuple[int, str]] = []
        statuses: collections.Counter[str] = collections.Counter()
        repairs: collections.Counter[str] = collections.Counter()
        for question, key, parsed in client.parsed_answers(self.questions(sessions, candidates)):
            if parsed is not None:
                statuses[parsed.status] += 1
                repairs.update(set(parsed.repairs))
            if parsed is not None and parsed.usable:
                lists[question.session_id].append(parsed.items)
                continue
            unusable.append((question.session_id, key))
        missing = {session: None for session, _ in unusable if session not in lists}
        # Read after the answers were parsed, on which depends whether one is final.
        records = client.store.answer_records()
        can_be_asked = {session for session, key in unusable if key not in records or not records[key].is_final}
        fused = {
            session: own[0] if self.shuffles == 1 else fuse_rankings(own, self.k) for session, own in lists.items()
        }
        return lists_to_rankings(fused, self.k), {
            "asked": len(sessions),
            "missing": list(missing),
            "open": [session for session in missing if session in can_be_asked],
            "model": client.endpoint.model,
            "prompt_sha256": template_hash(self.template, self.k, self.seed).hex(),
            "statuses": dict(statuses),
            "repairs": dict(repairs),
            "requests": client.store.ledger.requests,
            "tokens": client.store.ledger.tokens,
        } | self._agreement(lists)

    def _agreement(self, lists: Mapping[int, Sequence[Sequence[int]]]) -> dict[str, Any]:
        """Returns how far the lists of the same session agree, as a mean over sessions with several."""
        if self.shuffles == 1:
            return {}
        return {
            "shuffles": self.shuffles,
            "lists_of_a_session": float(np.mean([len(own) for own in lists.values()])) if lists else 0.0,
            "self_agreement": finite_or_none(dataclasses.asdict(mean_agreement(lists.values()))),
        }


def build_questions(
    sessions: Sessions,
    candidates: Int[np.ndarray, "M C"],
    titles: Sequence[str],
    template: Template,
    *,
    k: int = 25,
    seed: int = 0,
) -> Iterator[Question]:
    """Yields the question about each session.

    Sessions with the same items and candidates get different orders of the labels, and so separate answers.

    Args:
        sessions: M sessions; their targets are not read.
        candidates: the items to rank; 0 fills a short row.
        titles: V + 1 titles, the first of padding.
        template: words for the kind of item, and hints.
        k: number of items to list.
        seed: of the order of the labels.
    """
    repeats: collections.Counter[int] = collections.Counter()
    rows = zip(np.asarray(sessions.session_id), np.asarray(sessions.items), np.asarray(sessions.mask), strict=True)
    for (session_id, items, mask), row in zip(rows, candidates, strict=True):
        history = tuple(items[mask].tolist())
        prompt = RankingPrompt(int(session_id), history, tuple(row[row > PAD].tolist()), k)
        content = hash((history, frozenset(prompt.candidates)))
        yield ranking_question(prompt, template, titles, seed=seed + _SEED_STEP * repeats[content])
        repeats[content] += 1
