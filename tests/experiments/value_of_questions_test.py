"""What questions about items are worth: no answer reads validation or test, and the table is that of the numbers."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.llm.store import Store
from experiments import value_of_questions
from experiments.pipeline import question_value
from experiments.pipeline.question_value import Base, Study
from tests.helpers.fault_server import FaultServer, completion, http, titles_of
from tests.helpers.paths import ROOT

pytest.importorskip("sklearn")
STORED = ROOT / "experiments" / "results" / "questions"


@pytest.fixture(scope="module")
def dataset():
    """A dataset of whose items some never occur in training."""
    made = alkd.data.synthetic(num_items=150, num_sessions=250, seed=0)
    return dataclasses.replace(made, name="synthetic")


@pytest.fixture(scope="module")
def result(dataset, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(value_of_questions.registry, "read", lambda source: dataset)
        patch.setattr(question_value, "WEIGHTS", (0.0, 1.0))
        patch.setattr(value_of_questions, "ORDERS", ("value", "random"))
        return value_of_questions.measure(
            value_of_questions.Value("synthetic", numbers=(2,), accuracies=(1.0, 0.5), rare=3)
        )


def test_the_numbers_are_those_of_the_plan(result):
    plan = [tuple(row[name] for name in ("candidates", "base", "accuracy", "order")) for row in result["rows"]]
    assert plan == [
        ("known", "counts", 1.0, "value"),
        ("known", "counts", 1.0, "random"),
        ("known", "counts", 0.5, "value"),
        ("known", "counts and titles", 1.0, "value"),
        ("catalogue", "counts", 1.0, "value"),
        ("catalogue", "counts and titles", 1.0, "value"),
    ]
    assert {row["questions"] for row in result["rows"]} == {2}
    for row in result["rows"]:
        before = result["recall@10 without asking"][row["base"]]
        for split in ("validation", "test"):
            assert row[split]["recall@10"] - before[split] == pytest.approx(row[split]["gain"], abs=2e-6)
        assert row["validation"]["gain"] >= 0 or row["weight"] > 0, "weight 0 asks for nothing"
        assert 0 < row["dollars"] < 0.01 * row["questions"]


def test_answers_and_the_order_of_questions_read_no_held_out_session(dataset):
    hidden = {name: getattr(dataset, name).take(slice(0, 1)) for name in ("validation", "test")}
    studies = Study(dataset, rare=3), Study(dataclasses.replace(dataset, **hidden), rare=3)
    first, second = (study.answers("tf-idf", 0.7) for study in studies)
    np.testing.assert_array_equal(first.items, second.items)
    np.testing.assert_array_equal(studies[0].order("value", 3), studies[1].order("value", 3))
    is_seen = studies[0].counts.popularity > 0
    assert is_seen[first.items[first.mask]].all(), "what is named is known"


def test_an_answer_moves_the_item_up_in_sessions_that_hold_what_it_names(dataset):
    study = Study(dataset, rare=3)
    base = Base(study, "counts")
    target, last = int(dataset.test.target[0]), int(dataset.test.items[0][dataset.test.mask[0]][-1])
    known = alkd.Rankings.from_top_k(np.array([target], np.int32), np.array([[last]], np.int32))
    rules = question_value.item_rules.answer_rules(known, dataset.num_items)
    ranks = base.ranks("test", base.scores_of(rules, "test"), 100.0)
    assert ranks[0] == 1
    np.testing.assert_array_equal(base.ranks("test", base.scores_of(rules, "test"), 0.0), base.base_ranks["test"])


def test_encoders_vectors_are_needed_for_their_teacher(dataset):
    study = Study(dataset, rare=3)
    with pytest.raises(ValueError, match="--encoder FILE"):
        study.answers("encoder", 1.0)
    vectors = np.eye(151, 8, dtype=np.float32)
    answers = study.answers("encoder", 1.0, vectors)
    similarity = np.einsum("md,mkd->mk", vectors[study.asked], vectors[np.asarray(answers.items)])
    assert (similarity[answers.mask] >= 0.4).all()


def test_answers_of_a_language_model_are_measured_from_their_store(dataset, tmp_path):
    """The server names the first candidate shown, and for one item none."""
    study, store = Study(dataset, rare=3), tmp_path / "answers.sqlite"
    asked, shown = study.asked[:3].tolist(), [row[row > 0].tolist() for row in study.shown[0][:3]]

    def reply(call):
        labels = {title: label for label, title in titles_of(call.body).items()}
        is_none = json.dumps(dataset.titles[asked[0]]) in call.body["messages"][1]["content"].split("Candidates:")[0]
        title = "(none of these)" if is_none else next(title for title in labels if title != "(none of these)")
        return [http(completion(call, json.dumps({"ranking": [labels[title]]})))]

    with FaultServer(reply) as server:
        options = {"model": "any", "base_url": server.url, "store": store}
        answers = asyncio.run(alkd.llm.items_before(asked, shown, dataset.titles, **options))
    assert answers[0] == ()
    ((model, (rankings, dollars)),) = question_value.stored_answers(store).items()
    assert (model, dollars, rankings.session_id.tolist()) == ("any", 0.0, asked)
    assert [tuple(row[row > 0].tolist()) for row in rankings.items] == answers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question_value, "WEIGHTS", (0.0, 1.0))
        rows = list(value_of_questions._stored_rows(store, {"counts": Base(study, "counts")}))
    assert [(row["teacher"], row["questions"], row["weight"] in (0.0, 1.0)) for row in rows] == [("any", 3, True)]
    shown_row = value_of_questions.table_rows({"recall@10 without asking": {}, "rows": rows})
    assert (shown_row[0][2], shown_row[0][-1]) == ("any", ""), "free answers have no gain per dollar"
    with Store.open(tmp_path / "empty.sqlite"):
        pass
    with pytest.raises(ValueError, match="no usable answer about an item"):
        question_value.stored_answers(tmp_path / "empty.sqlite")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numbers": ()}, "--numbers is 0"),
        ({"numbers": (0,)}, "--numbers is 0"),
        ({"accuracies": (1.5,)}, "--accuracies is 1.5"),
        ({"rare": -1}, "--rare is -1"),
        ({"model": "unheard-of"}, "--model is 'unheard-of', whose price is not known"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        value_of_questions.measure(value_of_questions.Value("synthetic", **changes))


def test_numbers_are_stored_a_line_for_each_row(result):
    text = value_of_questions.as_json(result)
    assert json.loads(text) == result
    assert len(text.splitlines()) == len(result["rows"]) + 2
    rows = value_of_questions.table_rows(result)
    assert len(rows) == len(result["rows"]) + 2
    assert {len(row) for row in rows} == {len(value_of_questions.HEADINGS)}


def test_the_table_in_the_documents_is_that_of_the_stored_numbers():
    stored = sorted(STORED.glob("*.json"))
    assert stored
    text = (ROOT / "docs" / "selection.md").read_text()
    for file in stored:
        assert value_of_questions.as_markdown(json.loads(file.read_text())) in text, file.name
