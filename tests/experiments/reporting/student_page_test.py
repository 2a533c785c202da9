"""The page of a student: its script lists what the library lists, titles are text, and what is too large is named."""

import dataclasses
import importlib.resources
import json
import re

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.serving import numpy_encoders
from alkd_jax.serving.recommender import Recommender
from experiments.pipeline.training_free import TRAINING_FREE
from experiments.reporting import played_models, student_page
from tests.helpers import browser

DATASET = alkd.data.synthetic(num_items=80, num_sessions=300, seed=0)
KINDS = {
    "fpmc": ("fpmc", {}),
    "stamp": ("stamp", {}),
    "stamp summing padding": ("stamp", {"sum_padding": True}),
    "stamp as published": ("stamp", {"variant": "original"}),
    "attmix": ("attmix", {"levels": 3, "heads": 2}),
    "attmix, one head": ("attmix", {"levels": 12, "heads": 1}),
}
SESSIONS = [
    *[row[row > 0].tolist() for row in np.asarray(DATASET.test.items)[:20]],
    *([4, 4, 9], [80], list(range(1, 15)), list(range(1, 75))),
]


def made(kind, dataset=DATASET):
    """A student of random parameters; no program is compiled for it."""
    backbone, options = KINDS.get(kind, (kind, {}))
    options = {**numpy_encoders.OPTIONS[backbone], **options}
    shapes = numpy_encoders.parameter_shapes(backbone, options, num_items=dataset.num_items, dim=6)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return Recommender(backbone, options, arrays, dataset.item_ids, dataset.titles, dataset.train.items.shape[1])


def run_scorer(models, sessions, folder):
    """For each model and session, the item numbers of its list, by the page's script in Node."""
    scorer = importlib.resources.files("experiments.reporting") / "templates" / "scorer.js"
    content = json.dumps({"models": [dict(model.content) for model in models], "sessions": sessions})
    call = """
    const { models, sessions } = %s;
    const items = (list) => list.map(([item]) => item);
    const lists = models.map(decodeModel).map((model) => sessions.map((one) => items(recommend(model, one, 10))));
    console.log(JSON.stringify(lists));"""
    return browser.in_node(scorer.read_text() + call % content, folder)


def test_the_script_lists_what_the_recommender_lists(tmp_path):
    students = {kind: made(kind) for kind in KINDS}
    models = [played_models.vector_model(kind, student) for kind, student in students.items()]
    for lists, student in zip(run_scorer(models, SESSIONS, tmp_path), students.values(), strict=True):
        for items, found in zip(SESSIONS, lists, strict=True):
            assert [student.item_ids[item] for item in found] == [each.item_id for each in student.rank(items, 10)]


def test_the_script_counts_as_the_method_of_the_demo(tmp_path):
    model = played_models.counting_model("rules", DATASET)
    counts = baselines.count(DATASET.train_sequences, DATASET.num_items)
    scorer = TRAINING_FREE[played_models.COUNTING_METHOD](counts)
    sessions = [items for items in SESSIONS if len(items) <= 10]
    (lists,) = run_scorer([model], sessions, tmp_path)
    for items, found in zip(sessions, lists, strict=True):
        scores = baselines.break_ties(counts, scorer(baselines.Histories.from_rows([items])))[0]
        scores[items] = -np.inf
        assert found == baselines.best_items(scores, 10).tolist()


def test_a_title_is_text_and_nothing_is_loaded():
    titles = (
        "",
        "</script><script>alert(1)</script>",
        "\"quoted\" & 'so'",
        "<!-- <b>",
        "a\u202eb",
        *DATASET.titles[5:],
    )
    dataset = dataclasses.replace(DATASET, titles=titles)
    student = made("fpmc", dataset)
    page = student_page.student_page("<i>one</i>", student, [], dataset)
    content = re.search(r'<script type="application/json" id="play-data">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in content
    labels = json.loads(content)["labels"]
    assert labels[1:4] == list(titles[1:4])
    assert labels[4] == "a\\u202eb"
    assert page.count("</script>") == 2
    assert "<i>one</i>" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=|url\(|https?://|import\s*\(|fetch\(""", page)


def test_items_of_one_title_are_told_apart():
    titles = ("", "Twin", "Twin", "", *DATASET.titles[4:])
    labels = played_models.item_labels(dataclasses.replace(DATASET, titles=titles))
    assert labels[1:4] == ["Twin [item-1]", "Twin [item-2]", "item-3"]


def test_a_backbone_that_the_page_cannot_score_is_named():
    gru = made("gru4rec")
    with pytest.raises(ValueError, match="backbone is gru4rec; expected fpmc or stamp or attmix"):
        student_page.student_page("student", gru, [], DATASET)
    student = made("fpmc")
    play = student_page.playground([("student", lambda: student)], [("teacher", lambda: gru)], DATASET)
    assert [model.name for model in play.models] == ["student", played_models.COUNTING_METHOD]
    assert play.left_out == (
        "teacher is left out: backbone is gru4rec; expected fpmc or stamp or attmix, which a web page can score.",
    )


def test_a_page_that_is_too_large_leaves_out_or_refuses(monkeypatch):
    student = made("fpmc")
    monkeypatch.setattr(played_models, "MAX_BYTES", 10_000)
    play = student_page.playground([("student", lambda: student)], [("teacher", lambda: student)], DATASET)
    assert [model.name for model in play.models] == ["student"]
    assert [sentence.partition(" is ")[0] for sentence in play.left_out] == ["teacher", played_models.COUNTING_METHOD]
    monkeypatch.setattr(played_models, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"size of the page with student is 0.0 MB; expected at most 0.001 MB"):
        student_page.student_page("student", student, [], DATASET)
