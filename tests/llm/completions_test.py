"""Bodies of chat completions as servers send them: the same answer is found in each, and what is none has a name."""

import json

import pytest

from alkd_jax.llm.completions import parse_completion, read_body

LIST = '{"ranking": ["C07", "C03"]}'
USAGE = {"prompt_tokens": 7, "completion_tokens": 5}


def body(message, **more):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant"} | message} | more
    return {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE}


def events(*deltas, **last):
    chunks = [{"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks += [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE} | last,
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


PLAIN = json.dumps(body({"content": LIST}))
BODIES = {
    "plain": PLAIN,
    "byte order mark": "\ufeff" + PLAIN,
    "comment lines": ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n" + PLAIN,
    "blank lines": "\n\n \r\n" + PLAIN,
    "trailer": PLAIN + "\n<!-- served in 12 ms -->",
    "events": events({"role": "assistant"}, {"content": LIST[:9]}, {"content": LIST[9:]}),
    "named events": "event: message\r\nid: 4\r\n" + events({"content": LIST}).replace("\n", "\r\n"),
    "events with comments": ": ping\n\n" + events({"reasoning_content": "C01?"}, {"content": LIST}),
    "events of a call": events(
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": LIST[:5]}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": LIST[5:]}}]},
    ),
    "parts": json.dumps(body({"content": [{"type": "text", "text": LIST[:4]}, {"type": "text", "text": LIST[4:]}]})),
    "parts with reasoning": json.dumps(
        body(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "C01"}]},
                    {"type": "text", "text": LIST},
                ]
            }
        )
    ),
    "a part": json.dumps(body({"content": {"type": "text", "text": LIST}})),
    "an object": json.dumps(body({"content": json.loads(LIST)})),
    "parts of an object": json.dumps(body({"content": [json.loads(LIST)]})),
    "texts": json.dumps(body({"content": [LIST[:6], LIST[6:]]})),
    "a call": json.dumps(body({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": LIST}}]})),
    "a call with an object": json.dumps(
        body({"content": "", "tool_calls": [{"function": {"name": "f", "arguments": json.loads(LIST)}}]})
    ),
    "an old call": json.dumps(body({"content": None, "function_call": {"name": "f", "arguments": LIST}})),
    "reasoning beside": json.dumps(body({"content": LIST, "reasoning_content": '{"ranking": ["C01"]}'})),
    "reasoning only": json.dumps(body({"content": "", "reasoning_content": LIST})),
    "reasoning only, by another name": json.dumps(body({"content": None, "reasoning": LIST})),
    "details of reasoning only": json.dumps(
        body({"content": None, "reasoning_details": [{"type": "reasoning.text", "text": LIST}]})
    ),
    "a part of reasoning only": json.dumps(body({"content": [{"type": "thinking", "thinking": LIST}]})),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_same_answer_is_found_in_every_kind_of_body(name):
    answer = parse_completion(BODIES[name].encode())
    assert not isinstance(answer, str), answer
    assert json.loads(answer.content) == json.loads(LIST)
    assert (answer.finish_reason, answer.model) == ("stop", "m")
    assert (answer.usage.prompt, answer.usage.completion) == (7, 5)


def test_a_body_in_another_encoding_is_read():
    for encoding in ("utf-16", "utf-8-sig", "utf-16-le"):
        assert parse_completion(PLAIN.encode(encoding)).content == LIST
    damaged = json.dumps(body({"content": LIST + " caf\u00e9"}), ensure_ascii=False).encode("latin-1")
    assert parse_completion(damaged).content.startswith(LIST)


def test_content_before_a_call_is_kept():
    message = {"content": "I answer by a call.", "tool_calls": [{"function": {"arguments": LIST}}]}
    assert parse_completion(json.dumps(body(message)).encode()).content == f"I answer by a call.\n{LIST}"


def test_reasoning_that_was_cut_off_is_no_answer():
    cut = body({"content": "", "reasoning_content": LIST}, finish_reason="length")
    assert not parse_completion(json.dumps(cut).encode()).content


def test_a_refusal_among_the_parts_is_a_refusal():
    answer = parse_completion(json.dumps(body({"content": [{"type": "refusal", "refusal": "I cannot"}]})).encode())
    assert (answer.content, answer.refusal) == (None, "I cannot")


@pytest.mark.parametrize(
    ("raw", "headers", "named"),
    [
        (b"<html>busy</html>", {"content-type": "text/html"}, "17 bytes that is no JSON (text/html)"),
        (b"(\xb5/\xfd", {"content-encoding": "zstd"}, "no JSON (zstd)"),
        (b"", {}, "0 bytes that is no JSON"),
        (b'{"choices": [{"mess', {"content-type": "application/json"}, "no JSON (application/json)"),
        (b'{"choices": null}', {}, "without choices"),
        (b'data: {"error": {"message": "no"}}\n\n', {}, "without choices"),
    ],
)
def test_a_body_without_an_answer_is_named(raw, headers, named):
    assert named in parse_completion(raw, headers)


@pytest.mark.parametrize("value", [1, None, [], {}, [None], {"choices": [{"delta": 3}]}, {"choices": {"0": 1}}])
def test_strange_events_are_passed_over(value):
    read_body(f"data: {json.dumps(value)}\n\n{events({'content': LIST})}".encode())
    for message in ({"content": value}, {"tool_calls": value}, {"reasoning_details": value}, {"function_call": value}):
        assert not isinstance(parse_completion(json.dumps(body(message)).encode()), str)
