"""Lists in every style and wrapping, in every place of every body, arrive over a socket as they were meant."""

import json
import random

from tests.helpers import answer_styles
from tests.helpers.fault_server import completion, http
from tests.helpers.llm_questions import question, run

TITLES = ("", *answer_styles.HOSTILE, *(f"Title {n}" for n in range(1, 251)))
STYLES = [*answer_styles.JSON_STYLES.items(), *answer_styles.TEXT_STYLES.items(), *answer_styles.TITLE_STYLES.items()]


def chunks(whole, text):
    """The same completion as events."""
    deltas = [{"role": "assistant"}, {"content": text[: len(text) // 2]}, {"content": text[len(text) // 2 :]}]
    sent = [{"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    sent += [
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": whole["usage"]},
    ]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in sent) + "data: [DONE]\n\n"


BODIES = (
    lambda call, text: json.dumps(completion(call, text)),
    lambda call, text: "\ufeff" + json.dumps(completion(call, text)),
    lambda call, text: ": PROCESSING\n\n: PROCESSING\n" + json.dumps(completion(call, text)),
    lambda call, text: json.dumps(completion(call, text)) + "\n<!-- 12 ms -->",
    lambda call, text: chunks(completion(call, text), text),
    lambda call, text: json.dumps(completion(call, [{"type": "text", "text": text}])),
    lambda call, text: json.dumps(
        completion(call, "", message={"tool_calls": [{"function": {"name": "rank", "arguments": text}}]})
    ),
    lambda call, text: json.dumps(completion(call, "", message={"reasoning_content": text})),
)


def test_every_style_in_every_place_is_read_right_or_counted(tmp_path):
    asked = [question(n, titles=TITLES) for n in range(2 * len(STYLES))]
    number_of = {q.messages[-1]["content"]: n for n, q in enumerate(asked)}
    orders = [random.Random(n).sample(range(50), 25) for n in range(len(asked))]

    def behave(call):
        n = number_of[call.body["messages"][-1]["content"]]
        rng, shown = random.Random(n), asked[n]
        labels = [f"C{number:02d}" for number in range(50)]
        entries = [(labels[number], shown.titles[number]) for number in orders[n]]
        text = STYLES[n // 2][1](entries, rng)
        kind = answer_styles.WRAPPINGS[n % len(answer_styles.WRAPPINGS)]
        text = answer_styles.wrapped(text, kind, labels, list(shown.titles), rng)
        return [http(BODIES[n % len(BODIES)](call, text).encode())]

    report, ledger, server, parsed = run(tmp_path, behave, asked, min_valid=3)
    true = {q.session_id: tuple(q.candidates[k] for k in orders[n]) for n, q in enumerate(asked)}
    wrong = [session for session, answer in parsed.items() if answer.items and answer.items != true[session]]
    lost = [session for session, answer in parsed.items() if not answer.items]
    assert wrong == []
    assert len(lost) <= len(asked) // 50, [STYLES[session // 2][0] for session in lost]
    assert (report.failed, ledger.confirmed, ledger.possible) == ({}, server.cost, 0)
