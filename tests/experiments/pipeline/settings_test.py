"""The settings of a run: what is refused in one line before anything is written, and what the data decide."""

import json
import pathlib
import sys

import pytest

from alkd_jax.data.readers import registry
from experiments import all as everything
from experiments import (
    efficiency,
    fig2_correction,
    fig2_width,
    fig3_ratios,
    fig4_budget,
    leaderboard,
    query_llm,
    reproduce,
    table1,
    table2,
    tune,
)
from experiments.pipeline import console, stage_inputs
from experiments.pipeline.settings import Settings
from experiments.pipeline.teachers import TEACHERS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "realeased:x:ML"}, "'realeased:x:ML'; expected one of synthetic"),
        ({"data": "released:nowhere:ML"}, "nowhere"),
        ({"data": "released:nowhere:Books"}, "'Books'; expected one of ML, Games"),
        ({"backbone": "caser"}, "backbone is 'caser'; expected 'fpmc'"),
        ({"mode": "paper"}, "--mode is 'paper'; expected clean, released, or rules of the authors' code separated by"),
        ({"selection": "released"}, "--selection released needs --data released:PATH:NAME"),
        ({"targets": "second"}, "--targets is 'second'; expected 'last' or 'first' or 'all'"),
        (
            {"mode": "released", "seen": "keep"},
            "--mode released with --seen keep and --targets last; expected exclude",
        ),
        ({"list_loss": "rank"}, "--list-loss is 'rank'; expected 'bpr' or 'ranknet'"),
        ({"mode": "released", "list_loss": "ranknet"}, "--list-loss is ranknet with --mode released"),
        ({"seeds": 0}, "--seeds is 0; expected at least 1"),
        ({"teacher_dim": 10**12}, "--teacher-dim is 1000000000000; expected from 1 to 65536"),
        ({"seed": -1}, "--seed is -1; expected from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed is 4294967296; expected from 0"),
        ({"rankings": pathlib.Path("/dev/zero")}, "--rankings: /dev/zero: is no regular file"),
        ({"rankings": pathlib.Path("nowhere")}, "--rankings: nowhere: no such file"),
        ({"budget_usd": "1.00"}, "--budget-usd is 1.00 without --model; expected both"),
        ({"teacher": "openai", "model": "gpt-6-luna"}, "budget: nothing is capped; give dollars, tokens or requests"),
        ({"teacher": "openai", "model": "x", "budget_usd": "1.00"}, "no price is known for x, so dollars cannot be"),
        (
            {"teacher": "openai", "model": "x", "base_url": "ollama:", "extra_body": "[]"},
            "extra_body is '[]'; expected a JSON object",
        ),
        ({"min_valid": 5}, "--min-valid is 5 without --model; expected it as an option of experiments.query_llm"),
        ({"data": "prepared:nowhere"}, "--data prepared:PATH needs --teacher"),
        ({"data": "prepared:nowhere", "mode": "paper"}, "--mode is 'paper'"),
        ({"data": "prepared:nowhere", "teacher": "oracle"}, "--teacher is 'oracle'; expected 'replay' or 'simulated'"),
        ({"data": "prepared:nowhere", "teacher": "replay"}, "--teacher replay needs --rankings FILE"),
        ({"data": "prepared:nowhere", "teacher": "simulated"}, "nowhere"),
    ],
)
def test_invalid_settings_are_refused_in_one_line_before_anything_is_written(tmp_path, capsys, changes, message):
    base = {"data": "synthetic", "backbone": "fpmc", "out": tmp_path / "run", "selection": "own"}
    with pytest.raises(SystemExit) as stop, console.cli_errors():
        reproduce.run_pipeline(Settings(**(base | changes)))
    assert stop.value.code == 2
    output = capsys.readouterr().err.strip()
    assert message in output
    assert "\n" not in output
    assert not (tmp_path / "run").exists()


PREPARED = ["--data", "prepared:nowhere"]
FIGURES = (fig2_width, fig2_correction, fig3_ratios, fig4_budget)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (reproduce, [*PREPARED, "--backbone", "fpmc", "--selection", "own"]),
        (table1, [*PREPARED, "--selection", "own"]),
        (table2, PREPARED),
        (everything, [*PREPARED, "--selection", "own"]),
        *((figure, [*PREPARED, "--backbone", "fpmc"]) for figure in FIGURES),
        (leaderboard, PREPARED),
    ],
    ids=lambda value: getattr(value, "__name__", "").removeprefix("experiments."),
)
def test_every_command_requires_a_teacher_for_prepared_data(tmp_path, capsys, monkeypatch, command, arguments):
    line = [command.__name__, *arguments, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        command.main()
    output = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "\n" not in output
    assert "--data prepared:PATH needs --teacher" in output
    assert all(f"{name}, {teacher.lists}" in output for name, teacher in TEACHERS.items())
    assert not (tmp_path / "run").exists()
    # With a teacher the next thing missing is the data.
    monkeypatch.setattr(sys, "argv", [*line, "--selection", "own"] if command is not leaderboard else line)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--teacher", "simulated"])
    with pytest.raises(SystemExit):
        command.main()
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "more"), [(tune, ()), (efficiency, ()), (query_llm, ("estimate", "--model", "m"))])
def test_a_run_on_prepared_data_without_a_teacher_is_refused(tmp_path, capsys, monkeypatch, module, more):
    config = {"data": "prepared:nowhere", "backbone": "fpmc", "selection": "own", "ratios": [1, 5, 4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", [module.__name__, *more, "--run", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    output = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "needs --teacher" in output
    assert "\n" not in output


def test_the_default_teacher_depends_on_the_data(tmp_path):
    def teacher(data, **options):
        return Settings(data, "fpmc", tmp_path, **options).resolved_teacher

    assert teacher("synthetic") == teacher("synthetic:3") == "simulated"
    assert teacher("released:x:ML") == "replay"
    assert teacher("prepared:x", rankings=tmp_path / "lists.jsonl") == "replay"
    assert teacher("prepared:x", teacher="neighbor") == "neighbor"


def test_another_number_of_valid_entries_is_another_input_of_the_rankings(tmp_path):
    def rankings(**options):
        paid = Settings("synthetic", "fpmc", tmp_path, teacher="openai", model="m", budget_usd="1", **options)
        return stage_inputs.stage_inputs(paid, "synthetic", {})["rankings"]

    assert rankings(min_valid=15) == rankings() | {"min_valid": 15}


def test_a_model_of_this_machine_needs_no_budget_and_takes_fields_of_its_own(tmp_path):
    options = {"model": "m", "base_url": "ollama:", "llm_seed": "none", "extra_body": '{"top_k": 1}'}
    settings = Settings("synthetic", "fpmc", tmp_path, teacher="openai", **options)
    settings.check()
    assert settings.language_model.price.is_free
    assert settings.language_model.endpoint.seed is None
    assert settings.language_model.endpoint.extra_fields == {"top_k": 1}


def test_sources_are_parsed():
    assert registry.parse_source("released:a:b:ML").path == "a:b"
    assert registry.parse_source("synthetic:7").arguments == ("7",)
