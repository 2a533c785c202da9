"""Rankings in any style and wrapping: the true order or a counted failure, never another order."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm import prompts
from alkd_jax.llm.parsing import parse_answer
from tests.helpers import answer_styles


def read(seeds):
    """Of each answer with those seeds that was not read: its seed, its style, and what was read instead."""
    wrong, lost = [], []
    for seed in seeds:
        question, name, text, true = answer_styles.case(seed)
        parsed = parse_answer(question, text, min_valid=3)
        assert parsed.items or parsed.repairs, (seed, name)
        if parsed.items != true:
            (wrong if parsed.items else lost).append((seed, name, parsed.items))
    return wrong, lost


def test_answers_in_every_style_are_read_right_or_counted():
    wrong, lost = read(range(250))
    assert wrong == []
    assert len(lost) <= 5, lost


@pytest.mark.slow
def test_a_hundred_thousand_answers_are_read_right_or_counted():
    wrong, lost = read(range(100_000))
    assert wrong == []
    assert len(lost) <= 2_000, lost[:20]


ORDER = st.permutations(range(8)).map(lambda order: order[:5])
TITLES = st.lists(
    st.one_of(st.sampled_from(answer_styles.HOSTILE), st.text(min_size=1, max_size=40)),
    min_size=8, max_size=8, unique=True,
)  # fmt: skip
MARKS = st.sampled_from(["C01", "C02", "1.", "[", "{", '"', "ranking:", "\n", ","])
WORDS = st.lists(st.one_of(st.integers(0, 7), MARKS, st.text(max_size=12)), max_size=15)
"""Prose, in which an integer stands for a title."""


def about(titles):
    """The question about candidates with these titles."""
    prompt = prompts.RankingPrompt(3, (1,), tuple(range(2, 10)), 5)
    return prompts.ranking_question(prompt, prompts.ITEMS, ("", "Seen before", *titles))


def prose(words, question):
    return " ".join(question.titles[word] if isinstance(word, int) else word for word in words)


def answers(order, question):
    """The same ranking in several styles."""
    labels = [prompts.label(n) for n in order]
    titled = [f"{label}: {question.titles[n]}" for n, label in zip(order, labels, strict=True)]
    lines = "\n".join(f"{n}. {label}" for n, label in enumerate(labels, 1))
    return json.dumps({"ranking": labels}), lines, ", ".join(labels), json.dumps({"ranking": titled})


@given(TITLES, ORDER, WORDS, st.sampled_from(answer_styles.TAGS), st.integers(0, 3))
def test_reasoning_before_an_answer_never_changes_it(titles, order, words, tags, style):
    question = about(titles)
    text = f"{tags[0]}{prose(words, question)}{tags[1]}\n{answers(order, question)[style]}"
    true = tuple(question.candidates[n] for n in order)
    assert parse_answer(question, text, min_valid=1).items in (true, ())


@given(TITLES, ORDER, WORDS, WORDS)
def test_prose_around_a_json_answer_never_changes_it(titles, order, before, after):
    question = about(titles)
    text = f"{prose(before, question)}\n\n{answers(order, question)[0]}\n\n{prose(after, question)}"
    true = tuple(question.candidates[n] for n in order)
    assert parse_answer(question, text, min_valid=5).items in (true, ())


@given(TITLES, ORDER, st.integers(0, 300), st.integers(0, 3))
def test_an_answer_that_was_cut_off_is_a_beginning_of_itself(titles, order, length, style):
    question = about(titles)
    text = answers(order, question)[style][:length]
    parsed = parse_answer(question, text, finish_reason="length", min_valid=1)
    assert parsed.items == tuple(question.candidates[n] for n in order)[: len(parsed.items)]
