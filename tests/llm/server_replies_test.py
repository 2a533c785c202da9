"""What a llama.cpp server and a litellm proxy sent to real requests, recorded from them, is read and classified."""

import json
import pathlib

import pytest

from alkd_jax.llm import prompts, refusals
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.completions import parse_completion
from alkd_jax.llm.parsing import parse_answer

REPLIES = json.loads((pathlib.Path(__file__).parent / "server_replies.json").read_text("utf-8"))
"""`sent` is the request without its messages and schema; `order` has the labels that the answer lists."""


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: f"{reply['server']}: {reply['name']}")
def test_a_reply_of_a_real_server_is_understood(reply):
    raw = reply["body"].encode()
    if reply["outcome"] == "answer":
        assert not refusals.holds_error(raw)
        answer = parse_completion(raw)
        assert isinstance(answer, Answer)
        prompt = prompts.RankingPrompt(3, (1,), tuple(range(2, 52)), 25)
        question = prompts.ranking_question(prompt, prompts.ITEMS, [f"Title {n}" for n in range(52)])
        parsed = parse_answer(question, answer.content, finish_reason=answer.finish_reason, min_valid=3)
        assert parsed.items == tuple(question.candidates[int(label)] for label in reply["order"].split())
        assert (answer.usage is None) == ("stream" in reply["sent"])
    else:
        found = refusals.classify(reply["status"], raw, {}, body=reply["sent"], now=0.0)
        assert (found.outcome, found.field) == (reply["outcome"], reply.get("field"))
        assert found.is_charged == (reply["outcome"] == "possibly_billed")
