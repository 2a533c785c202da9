"""Answers that invite a wrong order.

Those of adversarial_answers.json were written by the reader's author. Those of adversarial_answers_outside.json, of
adversarial_answers_unread.json, and the first 30 of adversarial_answers_fresh.json were written, with their orders, by
people who had not read the reader then; the later ones of adversarial_answers_fresh.json after reading it.
"""

import dataclasses
import json
import pathlib

import pytest

from alkd_jax.llm import prompts
from alkd_jax.llm.parsing import parse_answer

FILES = [f"adversarial_answers{name}.json" for name in ("", "_outside", "_unread", "_fresh")]
CASES = [case for name in FILES for case in json.loads((pathlib.Path(__file__).parent / name).read_text("utf-8"))]
"""`order` has the numbers of the labels, best first; null allows a counted failure only, and "?" either.

A `note` is at each case that is counted although a person would read it.
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_adversarial_answer_is_read_right_or_counted(case):
    titles = case.get("titles", ["Heat", "Alien", "Brazil", "Casablanca", "Dune", "Eraserhead"])
    items = tuple(range(2, len(titles) + 2))
    named = ("", "Seen before", *titles)
    question = prompts.ranking_question(prompts.RankingPrompt(3, (1,), items, 4), prompts.ITEMS, named)
    shown = dataclasses.replace(question.prompt, candidates=items, titles=tuple(map(prompts.clean_title, titles)))
    question = dataclasses.replace(question, render=lambda: shown)
    parsed = parse_answer(question, case["text"], finish_reason=case.get("finish", "stop"), min_valid=4)
    order = case["order"]
    true = () if order is None else tuple(items[int(number)] for number in order.strip("?").split())
    assert parsed.items == true or (parsed.items == () and (order or "?").startswith("?"))
    assert parsed.items or parsed.repairs
