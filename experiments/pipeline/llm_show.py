"""What a run's language model is asked and what it answers: questions as sent, answers as read, bias and agreement."""

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator

from alkd_jax.llm.agreement import Agreement, mean_agreement, position_bias
from alkd_jax.llm.client import Client
from alkd_jax.llm.parsing import ParsedAnswer
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.store import Store

_BIASED = 0.8
"""Kendall's τ from which on lists repeat the order of the candidates."""


@dataclasses.dataclass(frozen=True)
class ShownQuestion:
    """A question as it is sent, and its answer.

    Attributes:
        question: the question.
        raw: the answer as it came; None where there is none.
        parsed: the answer as it was read; None where there is none.
    """

    question: Question
    raw: str | None
    parsed: ParsedAnswer | None

    def lines(self) -> Iterator[str]:
        """Yields the messages, the answer as it came, and the candidates in the order that was read."""
        yield f"session {self.question.session_id}"
        for message in self.question.messages:
            yield f"--- {message['role']}"
            yield message["content"]
        if self.parsed is None:
            yield "--- no answer yet"
            return
        yield "--- answer"
        yield self.raw or ""
        repairs = ", ".join(f"{count} {kind}" for kind, count in sorted(self.parsed.repairs.items()))
        yield f"--- read as: {self.parsed.status}{f' ({repairs})' if repairs else ''}"
        prompt = self.question.prompt
        place = {item: number for number, item in enumerate(prompt.candidates)}
        for rank, item in enumerate(self.parsed.items, start=1):
            yield f"{rank:3}. C{place[item]:02}  {prompt.titles[place[item]]}"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the answers of a model say about itself.

    Attributes:
        usable: number of usable lists.
        position_bias: mean of Kendall's τ between the order as shown and the answer, see
            :func:`alkd_jax.llm.agreement.position_bias`.
        agreement: of lists for the same session from several questions, which show the candidates in other orders or
            words; averaged over sessions.
    """

    usable: int
    position_bias: float
    agreement: Agreement

    def lines(self) -> Iterator[str]:
        """Yields the figures in words; those that are not known are left out."""
        yield f"{self.usable:,} usable lists"
        if not math.isnan(self.position_bias):
            yield (
                f"position bias: {self.position_bias:+.3f}, the mean of Kendall's τ between the candidates as shown "
                "and as ranked; 0 without bias"
            )
            if self.position_bias > _BIASED:
                yield (
                    "warning: the model lists candidates in the order in which they were shown, so that its lists say "
                    "little about the sessions; ask another model, or several orders with --shuffles"
                )
        if self.agreement.pairs:
            yield (
                f"self-agreement: Kendall's τ {self.agreement.kendall_tau:+.3f}, overlap {self.agreement.overlap:.0%}, "
                f"{self.agreement.pairs:,} pairs of lists for the same session"
            )


def shown_questions(
    client: Client, questions: Iterable[Question], *, number: int, session: int | None
) -> list[ShownQuestion]:
    """Returns some questions with their answers; sends nothing.

    Args:
        client: of the run's store.
        questions: the run's questions.
        number: how many, at most.
        session: id of the only session to show; None for the first ones.

    Raises:
        ValueError: no question is about the session.
    """
    chosen: list[Question] = []
    for question in questions:
        if session in (None, question.session_id):
            chosen.append(question)
        if len(chosen) == number:
            break
    if not chosen:
        raise ValueError(f"--session is {session}; expected one of the sessions that the model ranks")
    answers = list(client.parsed_answers(chosen))
    records = client.store.answer_records()
    return [
        ShownQuestion(question, None if parsed is None else client.store.content(records[key].attempt)[0], parsed)
        for question, key, parsed in answers
    ]


def judge(store: Store, model: str) -> Judgement:
    """Computes the figures of a model's usable answers in a store, whatever the questions' wording."""
    query = (
        "SELECT r.session_id, r.candidates, a.items FROM answers a JOIN requests r ON r.key = a.key "
        "WHERE r.kind = 'rank' AND r.model = ? AND a.usable = 1 AND a.attempt IN (SELECT MAX(b.attempt) FROM answers b "
        "WHERE b.usable = 1 GROUP BY b.key)"
    )
    rows = [(session, json.loads(shown), json.loads(items)) for session, shown, items in store.read(query, model)]
    lists: collections.defaultdict[int, list[list[int]]] = collections.defaultdict(list)
    for session, _, items in rows:
        lists[session].append(items)
    agreement = mean_agreement(lists.values())
    return Judgement(len(rows), position_bias([row[1] for row in rows], [row[2] for row in rows]), agreement)


def costs_by_model(store: Store) -> list[tuple[str, int, int, int]]:
    """Returns each model with its number of requests, tokens, and pico-dollars, those possibly billed included."""
    query = (
        "SELECT r.model, COUNT(*), SUM(t.tokens), SUM(t.cost) FROM attempts t JOIN requests r ON r.key = t.key "
        "WHERE t.state IN ('settled', 'possible') GROUP BY r.model ORDER BY r.model"
    )
    return [(str(model), int(count), int(tokens), int(cost)) for model, count, tokens, cost in store.read(query)]
