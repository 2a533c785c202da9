"""Finds the stored answer to a question, also one that was given under another bound of its tokens.

An answer that was not cut off says the same under a larger bound, so that raising the bound buys only those again
that were cut off.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

from alkd_jax.llm.answers import AnswerRecord
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.store import Store

_BOUND = re.compile(r'"max_(?:completion_)?tokens": ?([0-9]{1,9})\b')


@dataclasses.dataclass(frozen=True)
class Found:
    """Where the answer to a question is, or would be.

    Attributes:
        key: of the request that was answered, else of the one that asks the question now.
        record: of the last answer; None where there is none.
        request: the request, where it had to be rendered to know its key.
        is_in_batch: whether the question was sent in a batch whose answers are not here yet.
    """

    key: str
    record: AnswerRecord | None
    request: dict[str, Any] | None
    is_in_batch: bool


class AnswerIndex:
    """The requests and answers of a store, by question.

    Attributes:
        records: key of a request → its last answer.
        request_keys: prompt hash → key of the request, for all questions that were rendered before.
        keys_in_batches: keys of requests that were sent in a batch whose answers are not here yet.
    """

    def __init__(self, store: Store, endpoint: Callable[[], Endpoint]):
        """Reads the store.

        Args:
            store: of the answers.
            endpoint: returns the endpoint that questions are sent to now, which may change while a server is learned.
        """
        self._store, self._endpoint = store, endpoint
        self.records, self.request_keys = store.answer_records(), store.request_keys()
        self.keys_in_batches = store.keys_in_batches()
        self._bounds: list[int] | None = None

    def find(self, question: Question) -> Found:
        """Finds the answer to a question; the text is rendered only where its prompt hash is unknown."""
        endpoint = self._endpoint()
        prompt_hash, request = endpoint.prompt_hash(question), None
        key = self.request_keys.get(prompt_hash)
        record = None if key is None else self.records.get(key)
        if key in self.keys_in_batches or (record is not None and not self._is_cut_off(record)):
            return Found(str(key), record, None, key in self.keys_in_batches)
        if (other := self._answered_otherwise(question, endpoint)) is not None:
            return other
        if key is None:
            request = endpoint.request(question)
            key = self.request_keys[prompt_hash] = request["key"]
        return Found(key, self.records.get(key), request, key in self.keys_in_batches)

    def _answered_otherwise(self, question: Question, endpoint: Endpoint) -> Found | None:
        """Finds an answer that another bound of tokens did not cut off."""
        keys = [self.request_keys.get(endpoint.unbounded_hash(question))]
        keys += [self._key(question, other) for other in self._former_endpoints(endpoint)]
        for key in keys:
            if key in self.keys_in_batches:
                return Found(str(key), self.records.get(str(key)), None, True)
            record = None if key is None else self.records.get(key)
            if key is not None and record is not None and not self._is_cut_off(record):
                return Found(key, record, None, False)
        return None

    def _key(self, question: Question, endpoint: Endpoint) -> str:
        """Returns the key of a question's request to an endpoint."""
        prompt_hash = endpoint.prompt_hash(question)
        if prompt_hash not in self.request_keys:
            self.request_keys[prompt_hash] = endpoint.request(question)["key"]
        return self.request_keys[prompt_hash]

    def _is_cut_off(self, record: AnswerRecord) -> bool:
        """Whether an answer ended at its bound, or is not final, so that one under another bound is preferred."""
        if record.status is not None:
            return record.status == "truncated" or not record.is_final
        return self._store.content(record.attempt)[1] == "length"

    def _former_endpoints(self, endpoint: Endpoint) -> list[Endpoint]:
        """Returns the endpoint with the bounds of requests whose unbounded hash is not known, as of older stores."""
        if self._bounds is None:
            query = (
                "SELECT body FROM requests WHERE endpoint = ? AND model = ? AND body IS NOT NULL AND key NOT IN "
                "(SELECT key FROM wordings WHERE length(mark) > 16)"
            )
            found = set[int]()
            for (body,) in self._store.read(query, endpoint.normalized_url, endpoint.model):
                # The text that the fields' names could occur in is quoted, and its quotes are escaped.
                found.update(int(bound) for bound in _BOUND.findall(zlib.decompress(body).decode("utf-8", "replace")))
            self._bounds = sorted(found)
        return [
            dataclasses.replace(endpoint, max_output_tokens=bound)
            for bound in self._bounds
            if bound != endpoint.max_tokens()
        ]

    def keep(self, key: str, attempt: int, status: str, usable: bool, repairs: dict[str, int]) -> AnswerRecord:
        """Keeps the record of a request's last answer for further questions with this request."""
        former = self.records.get(key)
        answers = 1 if former is None else former.answers + (former.attempt != attempt)
        self.records[key] = AnswerRecord(attempt, status, usable, json.dumps(repairs), answers)
        return self.records[key]
