"""The steps from the authors' rules to ours: which rule each run leaves, and how the table adds up."""

import itertools
import json
import sys

import numpy as np
import pytest

from experiments import reproduce, steps
from experiments.pipeline.rules import RULES, STOPPING, mode_of, rules_of
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings
from experiments.reporting import step_rows
from tests.helpers.stored_tables import assert_page_holds

SMALL = {"seeds": 2, "max_steps": 20, "teacher_dim": 12, "budget": 40}


def test_a_mode_has_one_name_however_it_is_written():
    assert rules_of("clean") == frozenset()
    assert rules_of("released") == set(RULES), "the test decides nothing in the authors' code"
    for names in (["bands", "padding"], [*RULES], [STOPPING], ["released", STOPPING]):
        rules = rules_of(",".join(names))
        assert rules_of(mode_of(rules)) == rules
        assert mode_of(rules_of(",".join(reversed(names)))) == mode_of(rules)
    assert mode_of(rules_of(",".join(RULES))) == "released"


@pytest.mark.parametrize("mode", ["", "clean,bands", "bands,bands", "released,loss", "loss, bands"])
def test_unknown_and_repeated_rules_are_refused(mode):
    with pytest.raises(ValueError, match="--mode is"):
        rules_of(mode)


@pytest.mark.parametrize("selection", ["own", "released"])
def test_each_point_leaves_a_rule_until_none_is_left(selection):
    modes = list(steps.points(selection).values())
    rules = [rules_of(mode) for mode in modes]
    assert rules[0] == {*RULES, STOPPING}
    assert all(after < before for before, after in itertools.pairwise(rules))
    assert modes[-1] == "clean"
    assert len(modes) == (7 if selection == "own" else 6)
    assert "released" in modes


def test_a_rule_changes_only_what_it_says(tmp_path):
    def run_of(mode):
        return RunContext.open(Settings("synthetic", "fpmc", tmp_path / mode, mode=mode, selection="own", **SMALL))

    clean, padding, loss, stopping = map(run_of, ("clean", "padding", "loss", "stopping"))
    dataset = clean.dataset
    assert clean.split("validation") is dataset.validation
    assert stopping.split("validation") is stopping.dataset.test
    assert stopping.split("train") is stopping.dataset.train
    assert (np.asarray(dataset.train.items) == 1).any()
    assert not (np.asarray(padding.split("train").items) == 1).any()
    assert (padding.settings.protocol.rules, loss.settings.protocol.rules) == ("released", "clean")
    forms = [run.objective(run.model("student")).released for run in (clean, padding, loss)]
    assert forms == [False, False, True]
    solvers = [run_of(mode).stage_inputs["policy"]["solver"] for mode in ("loss,bands", "policy")]
    assert solvers == ["exact", "closed form"]


def test_the_expected_best_is_the_mean_over_all_choices():
    values = list(np.random.default_rng(0).random(7))
    for number in (1, 3, 7):
        best = np.mean([max(chosen) for chosen in itertools.combinations(values, number)])
        assert step_rows.expected_best(values, number) == pytest.approx(best)


def made_up():
    def point(change, mode, recall, **rest):
        numbers = {"recall@10": recall, "ndcg@10": recall, "ndcg_released@10": recall}
        return {"change": change, "mode": mode, "methods": {"Student": numbers, "ALKDRec": numbers}} | rest

    return {
        "dataset": "ML",
        "backbone": "fpmc",
        "method": "ALKDRec",
        "seeds": 3,
        "best_of": 2,
        "published": {"ALKDRec": {"recall@10": 0.05, "ndcg@10": 0.02}},
        "released_student": {"recall@10": 0.02, "ndcg@10": 0.01, "ndcg_released@10": 0.01},
        "points": [
            point("all", "released,stopping", [0.03, 0.04, 0.05]),
            point("fair", "released", [0.01, 0.02, 0.03], step=-0.02, step_interval=[-0.03, -0.01]),
            point("ours", "clean", [0.02, 0.02, 0.05], step=0.01, step_interval=[-0.01, 0.03]),
        ],
    }


def test_the_steps_add_up_to_the_difference_from_the_published_number():
    result = made_up()
    rows = step_rows.rows(result)
    assert [row[0] for row in rows] == [
        "published",
        "best of 2 seeds; all",
        "mean of the seeds",
        "NDCG by rank",
        "fair",
        "ours",
    ]
    changes = [float(row[2]) for row in rows if row[2]]
    assert sum(changes) == pytest.approx(0.03 - 0.05, abs=2e-4)
    assert rows[1][1] == f"{np.mean([0.04, 0.05, 0.05]):.4f}"
    assert rows[4][3] == "-0.0300 to -0.0100"
    text = step_rows.page(result)
    assert "The authors' student has 0.0200 by their rules: +0.0 standard deviations" in text
    assert "1 of 3 are above it" in text
    assert "published" not in step_rows.page(result | {"published": {}, "released_student": None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "bands"}, "--mode is bands, which the points decide"),
        ({"methods": "Random"}, "--methods is Random, which the points decide"),
        ({"method": "table1"}, "--method is table1; expected one method"),
        ({"teacher": "openai", "model": "m"}, "--model is m; expected --rankings"),
        ({"best_of": 9}, "--best-of is 9; expected at most --seeds, 2"),
    ],
)
def test_options_that_the_points_decide_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        steps.make_steps(steps.Steps("synthetic", "fpmc", tmp_path / "steps", **(SMALL | {"best_of": 2} | changes)))
    assert not (tmp_path / "steps").exists()


@pytest.mark.slow
def test_the_first_and_the_last_point_are_the_released_and_the_clean_mode(tmp_path, monkeypatch):
    arguments = ["--data", "synthetic", "--backbone", "fpmc", "--selection", "own", "--best-of", "2"]
    arguments += [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    monkeypatch.setattr(sys, "argv", ["steps", *arguments, "--out", str(tmp_path / "steps")])
    steps.main()
    found = json.loads((tmp_path / "steps" / "steps.json").read_text())
    assert (tmp_path / "steps" / "steps.md").read_text() == step_rows.page(found)
    for mode in ("released", "clean"):
        alone = reproduce.run_pipeline(
            Settings("synthetic", "fpmc", tmp_path / mode, mode=mode, methods="ALKDRec", selection="own", **SMALL)
        )
        (point,) = (point for point in found["points"] if point["mode"] == mode)
        assert point["methods"]["ALKDRec"]["recall@10"] == alone["methods"]["ALKDRec"]["recall@10"]["values"]
    means = [np.mean(point["methods"]["ALKDRec"]["recall@10"]) for point in found["points"]]
    assert sum(point["step"] for point in found["points"][1:]) == pytest.approx(means[-1] - means[0], abs=1e-6)


def test_the_tables_of_the_page_are_those_of_the_stored_results():
    assert_page_holds("claims.md", step_rows.STORED, lambda result: step_rows.page(result).strip())
