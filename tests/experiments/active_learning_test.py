"""Ordinary active learning as methods of a run."""

import json
import re

import jax
import numpy as np
import pytest

from alkd_jax import models, selection
from experiments import reproduce
from experiments.pipeline import methods, stage_records, stages
from experiments.pipeline.settings import Settings

AT_ONCE = ("Entropy", "Margin", "K-center", "M-RARU", "Gradient embeddings")


def settings(out, **changes):
    small = {"seeds": 1, "max_steps": 20, "teacher_dim": 12, "budget": 30, "selection": "own", "methods": "Entropy"}
    return Settings(data="synthetic", backbone="fpmc", out=out, **(small | changes))


class Untrained(stages.Run):
    """A run with teacher and student as they are before training, and some difficulties."""

    def first_params(self, name):
        return models.init_params(jax.random.key(0), self.model(name))

    def load_array(self, file, name):
        return -np.random.default_rng(0).random(len(self.dataset.train)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Untrained.open(settings(tmp_path_factory.mktemp("runs") / "active"))


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_selection_chooses_distinct_sessions_that_can_be_ranked(run, name):
    answerable = np.arange(len(run.dataset.train)) % 3 == 0
    rows = methods.SELECTIONS.find(name)(run, answerable)
    assert len(set(rows.tolist())) == 30
    assert answerable[rows].all()


def test_a_measured_game_begins_with_its_pilot(run, monkeypatch):
    measured, measure = [], selection.measure_game

    def noted(teacher_rank, student_rank):
        measured.append((len(teacher_rank), measure(teacher_rank, student_rank)))
        return measured[-1][1]

    monkeypatch.setattr(selection, "measure_game", noted)
    answerable = np.ones(len(run.dataset.train), bool)
    rows = methods.SELECTIONS.find("Measured gains")(run, answerable)
    assert len(set(rows.tolist())) == 30
    assert [num for num, _ in measured] == [6], "a fifth of the budget"
    assert sum(measured[0][1].ratios) == 6 + 3
    asked = stages.Run(settings(run.settings.out, teacher="openai"), run.dataset, run.folder)
    with pytest.raises(ValueError, match="Measured gains reads lists while it selects"):
        methods.SELECTIONS.find("Measured gains")(asked, answerable)


def test_other_methods_can_be_added_but_another_option_is_told(run):
    def inputs(**changes):
        return stages.Run(settings(run.settings.out, **changes), run.dataset, run.folder).stage_inputs["selection"]

    everything = ",".join(methods.ACTIVE)
    told = {name: set(inputs(methods=name)) - stage_records.FOLLOWING for name in ("Random", "Entropy", everything)}
    assert set(map(frozenset, told.values())) == {frozenset({"selection", "budget"})}
    changed = inputs(methods=everything, selection_rounds=3, uncertainty="margin", pilot_share=0.5)
    assert set(changed) - stage_records.FOLLOWING == {
        "selection",
        "budget",
        "selection_rounds",
        "uncertainty",
        "pilot_share",
    }
    assert inputs(methods="Rounds")["lists"]["teacher"] == "simulated", "its lists decide what is selected"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection_rounds": 0}, "--selection-rounds is 0; expected at least 1"),
        ({"pilot_share": 0.0}, "--pilot-share is 0.0"),
        ({"uncertainty": "variance"}, "--uncertainty is 'variance'; expected 'entropy' or 'margin'"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        settings(tmp_path, **changes).check()


@pytest.mark.slow
def test_rounds_distill_in_between_and_the_gate_is_trained(tmp_path):
    names = ("Rounds", "Measured gains", "Learned gate")
    numbers = reproduce.run_pipeline(settings(tmp_path / "run", methods=",".join(names), selection_rounds=3))
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())
    assert {len(set(ids)) for ids in chosen.values()} == {30}
    assert numbers["methods"].keys() >= {*names}
    inputs = json.loads((tmp_path / "run" / "stages.json").read_text())["selection"]["inputs"]
    assert (inputs["selection_rounds"], inputs["lists"]["teacher"]) == (3, "simulated")
