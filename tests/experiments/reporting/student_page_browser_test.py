"""The page of a student in a browser without a window: its lists, its keyboard, and titles that look like HTML."""

import dataclasses
import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.serving import export
from experiments.pipeline.training_free import TRAINING_FREE
from experiments.reporting import played_models, student_page
from tests.helpers import browser
from tests.helpers.random_models import random_model

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DATASET = alkd.data.synthetic(num_items=300, num_sessions=1000, seed=0)
STUDENTS = {"student": ("stamp", {}, 10), "teacher": ("attmix", {}, 12)}
TITLES = ("", "</script><b>Bold</b>", "\"Quoted\" & 'so'", *DATASET.titles[3:])

KEYS = """
const box = part("search");
const press = (key) => box.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const type = (text) => { box.value = text; box.dispatchEvent(new Event("input", { bubbles: true })); };
const texts = (selector) => [...document.querySelectorAll(selector)].map((found) => found.textContent);
const held = () => texts("#play-session li").map((text) => text.replace("×", ""));
"""


@pytest.fixture(scope="module")
def students():
    dataset = dataclasses.replace(DATASET, titles=TITLES)
    made = {}
    for name, (backbone, options, dim) in STUDENTS.items():
        model, params = random_model(backbone, options, num_items=dataset.num_items, dim=dim)
        made[name] = export.recommender(model, params, dataset)
    return dataset, made


@pytest.fixture(scope="module")
def page(students):
    dataset, made = students
    return student_page.student_page("student", made["student"], [("teacher", lambda: made["teacher"])], dataset)


def test_lists_are_those_of_the_recommender_on_200_sessions(students, page, tmp_path):
    dataset, made = students
    sessions = [row[row > 0].tolist() for row in np.asarray(dataset.test.items)]
    assert len(sessions) == 200
    script = f"""{KEYS}
    answer = {json.dumps(sessions)}.map((items) => {{
      setSession(items);
      const columns = [...document.querySelectorAll("#play-lists section")];
      return columns.map((column) => [...column.querySelectorAll("li")].map((entry) => entry.textContent));
    }});"""
    lists = browser.in_browser(page, script, tmp_path)
    labels = played_models.item_labels(dataset)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    scorer = TRAINING_FREE[played_models.COUNTING_METHOD](counts)
    counted = baselines.top_k_lists(scorer, counts, dataset.test, 10)
    for items, by_rules, found in zip(sessions, np.asarray(counted.items).tolist(), lists, strict=True):
        expected = [
            [labels[dataset.item_ids.index(each.item_id)] for each in student.rank(items, 10)]
            for student in made.values()
        ]
        assert found == [*expected, [labels[item] for item in by_rules]]


def test_titles_are_picked_and_removed_by_keyboard(page, tmp_path):
    script = f"""{KEYS}
    part("clear").click();
    const empty = [held(), texts("#play-lists .note").length];
    type("bold");
    const found = texts("#play-options li");
    press("Enter");
    const first = held();
    type(PLAY.labels[9].slice(0, 4).toUpperCase());
    const many = texts("#play-options li");
    press("ArrowDown"); press("ArrowDown"); press("ArrowUp");
    const active = document.getElementById(box.getAttribute("aria-activedescendant")).textContent;
    const expanded = box.getAttribute("aria-expanded");
    press("Enter");
    const second = held();
    const status = part("status").textContent;
    press("Backspace");
    const third = held();
    document.querySelector("#play-session button").click();
    answer = {{ empty, found, first, many, active, expanded, second, status, third, last: held(),
      closed: box.getAttribute("aria-expanded") }};"""
    answer = browser.in_browser(page, script, tmp_path)
    bold = TITLES[1]
    assert answer["empty"] == [[], 3]
    assert answer["found"] == [bold]
    assert answer["first"] == answer["third"] == [bold]
    assert answer["expanded"] == "true"
    assert answer["active"] == answer["many"][1]
    assert answer["second"] == [bold, answer["many"][1]]
    assert answer["status"].startswith("2 titles in the session. student: ")
    assert answer["last"] == []
    assert answer["closed"] == "false"


def test_the_box_and_the_lists_have_names_for_screen_readers(page, tmp_path):
    script = f"""{KEYS}
    setSession([1, 2]);
    answer = {{
      box: document.querySelector("label[for=play-search]").textContent,
      keys: document.getElementById(box.getAttribute("aria-describedby")).textContent,
      lists: [...document.querySelectorAll("#play-lists section")].map((each) => each.getAttribute("aria-label")),
      remove: [...document.querySelectorAll("#play-session button")].map((each) => each.getAttribute("aria-label")),
      bold: document.querySelectorAll("#play b").length,
      wide: document.documentElement.scrollWidth <= innerWidth,
    }};"""
    answer = browser.in_browser(page, script, tmp_path)
    assert answer["box"] == "Add a title to the session"
    assert "Backspace" in answer["keys"]
    assert answer["lists"] == ["List of student", "List of teacher", f"List of {played_models.COUNTING_METHOD}"]
    assert answer["remove"] == [f"Remove {title}" for title in TITLES[1:3]]
    assert answer["bold"] == 0
    assert answer["wide"]
