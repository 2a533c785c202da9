"""Answers: only labels that were shown count, every repair is counted, nothing is filled in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm import prompts
from alkd_jax.llm.parsing import STATUSES, parse_answer
from tests.helpers.llm_questions import question

QUERY = question(0)
NAMES = [f"C{n:02d}" for n in range(50)]


def items(names):
    return tuple(QUERY.candidates[int(name[1:])] for name in names)


def ranking(names):
    return json.dumps({"ranking": list(names)})


FULL = NAMES[10:35]

WHOLE = {
    "as requested": (ranking(FULL), {}),
    "bare list": (json.dumps(FULL), {"shape"}),
    "another name": (json.dumps({"result": FULL}), {"shape"}),
    "more than requested": (json.dumps({"why": "because", "ranking": FULL}), {"shape"}),
    "fence": (f"Here you are:\n```json\n{ranking(FULL)}\n```", {"fence", "prose"}),
    "reasoning": (f"<think>C01 or C02?</think>\n{ranking(FULL)}", {"reasoning"}),
    "lower case": (ranking(name.lower() for name in FULL), {"spelling"}),
    "full-width digits": (ranking(name.replace("1", "１") for name in FULL), {"spelling"}),
    "arabic digits": (ranking(name.replace("2", "٢") for name in FULL), {"spelling"}),
    "with titles": (ranking(f"{name}: Title 7" for name in FULL), {"spelling"}),
    "objects": (json.dumps({"ranking": [{"id": name, "title": "C99"} for name in FULL]}), {"shape"}),
    "nested": (json.dumps({"ranking": [[name] for name in FULL]}), {"nested"}),
    "duplicates": (ranking([*FULL[:5], *FULL]), {"duplicate"}),
    "26": (ranking([*FULL, "C40"]), {"surplus"}),
    "50": (ranking(FULL + [name for name in NAMES if name not in FULL]), {"surplus"}),
    "unknown ones between": (ranking(["C50", *FULL, "C99", "X01"]), {"unknown"}),
    "integers between": (json.dumps({"ranking": [3, *FULL, 4.5, None, True]}), {"unknown"}),
    "numbered prose": ("\n".join(f"{n}. {name} - Title 4" for n, name in enumerate(FULL, 1)), {"prose"}),
    "bullets": ("I think:\n" + "\n".join(f"- **{name}** (C49 is near)" for name in FULL), {"prose"}),
    "commas": (", ".join(FULL), {"prose"}),
    "arrows": (" > ".join(FULL), {"prose"}),
    "cut off but whole": (ranking(FULL)[:-2], {"cut"}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_complete_answers_give_their_items_and_name_the_repair(name):
    content, repairs = WHOLE[name]
    reading = parse_answer(QUERY, content)
    assert reading.items == items(FULL)
    assert set(reading.repairs) == set(repairs)
    assert reading.status == ("repaired" if repairs else "ok")


@pytest.mark.parametrize(
    ("count", "status"), [(25, "ok"), (24, "partial"), (20, "partial"), (19, "invalid"), (0, "invalid")]
)
def test_short_lists_stay_short(count, status):
    reading = parse_answer(QUERY, ranking(FULL[:count]))
    assert reading.status == status
    assert reading.items == (items(FULL[:count]) if status != "invalid" else ())
    assert reading.repairs.get("short", 0) == 25 - count


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"ranking": list(range(25))}),
        json.dumps([str(n) for n in range(25)]),
        "\n".join(f"{n}. {n + 3}" for n in range(25)),
        " ".join(map(str, QUERY.candidates)),
        json.dumps({"ranking": list(QUERY.candidates[:25])}),
        "",
        "   ",
        None,
        "[" * 5000,
        "9" * 90_000,
        "<think>" + ranking(FULL),
        '{"ranking": "C01"}',
        '{"ranking": {"C01": 1}}',
        "I cannot help with that.",
        "The C01, C02 and C03 are of interest, as are C04 and C05.",
    ],
    ids=lambda content: repr(content)[:30],
)
def test_digits_ids_and_chatter_are_never_read_as_labels(content):
    reading = parse_answer(QUERY, content)
    assert (reading.status, reading.items) == ("invalid", ())


def test_endings_have_their_own_status():
    assert parse_answer(QUERY, ranking(FULL), finish_reason="content_filter").status == "refused"
    assert parse_answer(QUERY, ranking(FULL), refusal="no").status == "refused"
    cut = parse_answer(QUERY, ranking(FULL)[: ranking(FULL).index("C33") + 2], finish_reason="length")
    assert (cut.status, cut.items) == ("truncated", items(FULL[:23]))
    assert parse_answer(QUERY, '{"ranking": ["C01", "C0', finish_reason="length").items == ()
    assert parse_answer(QUERY, ranking(FULL), finish_reason="odd").status == "ok"


def query_about(titles):
    named = ("", "Seen before", *titles)
    prompt = prompts.RankingPrompt(3, (1,), tuple(range(2, len(named))), 3)
    return prompts.ranking_question(prompt, prompts.ITEMS, named)


def test_titles_count_where_they_are_exact_and_alone():
    query = query_about(["Toy Story", "Toy Story 2", "Twin", "Twin", "Heat"])
    assert parse_answer(query, '["Toy Story 2", "heat", "TOY STORY"]').items == (3, 6, 2)
    assert parse_answer(query, "1. Toy Story\n2. Heat\n3. Toy Story 2").items == (2, 6, 3)
    twin = parse_answer(query, '["Twin", "Toy Story", "Heat"]', min_valid=2)
    assert (twin.items, twin.status, twin.repairs["unknown"]) == ((2, 6), "partial", 1)
    label = prompts.label(query.candidates.index(6))
    assert parse_answer(query, json.dumps([label, "Toy Story", "Toy Story 2"])).items == (6, 2, 3)


def test_a_title_that_looks_like_a_label_is_never_taken_for_one():
    """Faults 14 and 15."""
    query = query_about(["C02", "C00", "C01 and C02"])
    named = {label: item for label, item in zip(("C00", "C01", "C02"), query.candidates, strict=True)}
    reading = parse_answer(query, '{"ranking": ["C01", "C02", "C00"]}')
    assert reading.items == (named["C01"], named["C02"], named["C00"])


texts = st.one_of(
    st.text(max_size=300),
    st.lists(st.one_of(st.sampled_from([*NAMES, "C50", "C7", "c03", "1"]), st.integers(), st.text(max_size=5))).map(
        json.dumps
    ),
    st.lists(st.sampled_from(NAMES)).map(ranking),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4) | st.sampled_from(NAMES),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["ranking", "id", "rank", "points", "C03", "1", "x"]), inner)
        ),
    ).map(json.dumps),
    st.lists(st.sampled_from([*NAMES, "\n", "1. ", "- ", '"', "`", "Title 7"])).map("".join),
)


@given(texts, st.sampled_from(["stop", "length", None, "odd"]), st.integers(0, 25))
def test_whatever_the_text_the_list_is_a_short_set_of_candidates(content, finish_reason, min_valid):
    reading = parse_answer(QUERY, content, finish_reason=finish_reason, min_valid=min_valid)
    assert reading.status in STATUSES
    assert len(set(reading.items)) == len(reading.items) <= 25
    assert set(reading.items) <= set(QUERY.candidates)
    assert reading.items == () or len(reading.items) >= min_valid
    assert all(times > 0 for times in reading.repairs.values())


def hints_question():
    return prompts.hints_question([((1, 2), (3, 4))], prompts.MOVIES, ("", "A", "B", "C", "D"))


def test_hints_are_cleaned_and_bounded():
    query = hints_question()
    assert parse_answer(query, '{"hints": ["Series go on."]}').hints == ("Series go on.",)
    long = parse_answer(query, json.dumps({"hints": ["x" * 900, 4, "a\u202eb"] + [f"h{n}" for n in range(20)]}))
    assert long.status == "repaired"
    assert len(long.hints) == 8
    assert max(map(len, long.hints)) <= 301
    assert "\u202e" not in "".join(long.hints)
    assert parse_answer(query, "no idea").status == "invalid"
    assert parse_answer(query, '{"hints": []}').status == "invalid"
