"""Answers of a server: as received, and as recorded in a store."""

import dataclasses
from typing import NamedTuple

from alkd_jax.llm.token_usage import Usage

_MAX_ANSWERS = 2


@dataclasses.dataclass(frozen=True)
class Answer:
    """The server's answer to one request; a field is None where the server sent none.

    Attributes:
        content: text of the message.
        finish_reason: why the model stopped, such as "stop" or "length".
        refusal: text of a refusal.
        usage: tokens as counted by the server.
        model: name of the model that answered.
        fingerprint: the server's fingerprint of that model.
        tier: service tier that answered.
        provider_id: the server's id of the answer.
        raw: body of the HTTP answer, without the API key; None where there was no space to keep it.
    """

    content: str | None
    finish_reason: str | None
    refusal: str | None
    usage: Usage | None
    model: str | None
    fingerprint: str | None
    tier: str | None
    provider_id: str | None
    raw: bytes | None


class AnswerRecord(NamedTuple):
    """The last answer to a request.

    Attributes:
        attempt: id of the attempt that was answered.
        status: of the parsed answer; None where this version of the parser has not parsed it yet.
        usable: whether the answer has items or hints.
        repairs: kind of repair → number of entries, as JSON.
        answers: number of answers to the request.
    """

    attempt: int
    status: str | None
    usable: bool
    repairs: str
    answers: int

    @property
    def is_final(self) -> bool:
        """Whether no further answer is bought: an invalid answer is asked for once more, any other only once."""
        return self.status != "invalid" or self.answers >= _MAX_ANSWERS
