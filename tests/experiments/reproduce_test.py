"""The experiments as a user runs them: files, reuse, resumption, and errors of one line."""

import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

import alkd_jax as alkd
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
    quickstart,
    reproduce,
    table1,
    table2,
    tune,
)
from experiments.pipeline import console, methods, stage_inputs, stages
from experiments.pipeline.methods import METHODS, SELECTIONS
from experiments.pipeline.settings import Settings
from experiments.pipeline.teachers import TEACHERS
from experiments.reporting import figure_options, results, tables

ROWS = {"Student", "Teacher", "Random", "ALKDRec", "Popularity", "Markov", "Co-occurrence", "Item-kNN", "Session-kNN"}


def settings(out, **changes):
    small = {"seeds": 2, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own"}
    return Settings(data="synthetic", backbone="fpmc", out=out, **(small | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy"
    return out, reproduce.run_pipeline(settings(out))


def test_metrics_have_the_documented_keys(finished):
    out, numbers = finished
    written = json.loads((out / "metrics.json").read_text())
    assert written == json.loads(json.dumps(numbers))
    described = [written[name] for name in ("dataset", "backbone", "mode", "seeds")]
    assert described == ["synthetic", "fpmc", "clean", 2]
    assert written["methods"].keys() >= ROWS
    for name, columns in written["methods"].items():
        assert columns.keys() >= {*results.COLUMNS, "tied", "stratified_recall@10"}, name
        for column in columns.values():
            assert column["mean"] == pytest.approx(sum(column["values"]) / len(column["values"]))
    assert len(written["methods"]["ALKDRec"]["recall@10"]["values"]) == 2


def test_a_game_that_cannot_be_won_is_refused(finished, tmp_path):
    out, _ = finished
    shutil.copytree(out, tmp_path / "lost")
    with pytest.raises(
        ValueError, match=r"\(1, 3, 6\), for which the value of the game is -0\.5 and its policy selects 1 of 40"
    ):
        reproduce.run_pipeline(settings(tmp_path / "lost", ratios=(1, 3, 6), overwrite=True))


def test_every_ratio_of_the_figure_is_a_game_that_can_be_won():
    assert all(effective + similar / 2 > incorrect / 2 for effective, similar, incorrect in figure_options.RATIOS)


def test_a_run_is_a_folder_of_named_files(finished):
    out, _ = finished
    names = (
        "config.json",
        "data.json",
        "difficulty.npz",
        "policy.npz",
        "selection.json",
        "rankings.jsonl",
        "ranks.npz",
    )
    assert all((out / name).exists() for name in names)
    chosen = json.loads((out / "selection.json").read_text())
    assert {method: len(set(ids)) for method, ids in chosen.items()} == dict.fromkeys(SELECTIONS, 40)
    assert [path.name for path in out.glob(".*")] == [".lock"], "no partial output remains"


def test_a_mesh_is_not_stored_with_a_run_and_needs_its_devices(finished):
    out, _ = finished
    assert "mesh" not in json.loads((out / "config.json").read_text())
    with pytest.raises(ValueError, match=r"mesh is data=64,model=2; expected at most \d+ devices \(cpu\), not 128"):
        settings(out, mesh="data=64,model=2").check()
    with pytest.raises(ValueError, match="mesh is 'data=two'; expected sizes of at least 1"):
        settings(out, mesh="data=two").check()
    one = reproduce.run_pipeline(settings(out, mesh="data=1"))
    assert one["methods"].keys() >= ROWS


def test_a_folder_made_before_there_was_a_choice_of_precision_has_float32(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    for name in ("config.json", "run.json"):
        stored = json.loads((out / name).read_text())
        assert stored.pop("precision") == "float32"
        (out / name).write_text(json.dumps(stored))
    before = json.loads((out / "stages.json").read_text())
    reproduce.run_pipeline(stages.Run.reopen(out).settings)
    assert json.loads((out / "stages.json").read_text()) == before, "nothing is trained again"
    with pytest.raises(ValueError, match="precision is 'float32', not 'bfloat16'"):
        reproduce.run_pipeline(settings(out, precision="bfloat16"))


def test_a_folder_whose_ties_were_ranked_by_another_rule_is_ranked_again_but_not_trained_again(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    before = json.loads((out / "stages.json").read_text())
    record = before["training_free"]
    former = record | {"digest": "former", "inputs": {"methods": record["inputs"]["methods"]}}
    (out / "stages.json").write_text(json.dumps(before | {"training_free": former}))
    (out / "training_free_tied.json").unlink()
    assert reproduce.run_pipeline(stages.Run.reopen(out).settings) == finished[1]
    after = json.loads((out / "stages.json").read_text())
    assert {stage for stage in before if before[stage] != after[stage]} <= {"training_free", "ranks"}
    assert after["training_free"]["digest"] == record["digest"]


def test_another_protocol_ranks_a_finished_run_again_without_training(finished, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    with pytest.raises(ValueError, match=r"training_free \(seen None → 'keep'.*; ranks \(seen None → 'keep', targets"):
        reproduce.run_pipeline(settings(out, seen="keep", targets="all"))
    monkeypatch.setattr(stages.training, "fit", None)
    numbers = reproduce.run_pipeline(settings(out, seen="keep", targets="all", overwrite=True))
    assert numbers["protocol"]["name"] == "all targets, seen items ranked, mean rank of ties"
    assert numbers["protocol"]["name"] in (out / "report.html").read_text()
    run = stages.Run.reopen(out, readonly=True)
    sequences = run.dataset.test_sequences
    num_queries = len(sequences.sequences.items) - len(sequences)
    queries, ranks = (dict(np.load(out / f"{name}.npz")) for name in ("queries", "ranks"))
    assert {array.shape[-1] for array in (*queries.values(), *ranks.values())} == {num_queries}
    params = stages.first_seed(run.params("student"))
    student = alkd.evaluate(run.model("student"), params, sequences, seen="keep", targets="all")
    assert np.array_equal(ranks["Student"][0], student.ranks)
    assert np.array_equal(queries["target"], student.target)
    assert {test["num_sessions"] for test in numbers["tests"]} == {len(sequences)}, "sessions are drawn whole"
    assert sum(part["queries"] for part in numbers["groups"].values()) == 2 * num_queries, "in two partitions"


def test_the_report_refers_to_no_other_file(finished):
    page = (finished[0] / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not [tag for tag in ("<script src", "<link", 'src="http', "@import") if tag in page]
    assert "ALKDRec" in page


def test_a_second_run_trains_nothing_and_gives_the_same_numbers(finished, monkeypatch):
    out, numbers = finished

    def refuse(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(stages.training, "fit", refuse)
    assert reproduce.run_pipeline(settings(out)) == numbers


def test_options_that_would_replace_results_are_listed_and_change_nothing(finished):
    out, _ = finished
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name != ".lock"}
    for changes, listed in [
        ({"budget": 30}, "selection (budget 40 → 30)"),
        (
            {"ratios": (1, 4, 5), "accuracy": 0.5},
            "policy (ratios [1, 5, 4] → [1, 4, 5]); rankings (accuracy 0.9 → 0.5)",
        ),
        ({"correction": 0.1}, "lists (correction 0.0 → 0.1)"),
        ({"teacher": "neighbor"}, "rankings (teacher 'simulated' → 'neighbor')"),
        ({"student_dim": 4}, "student (dim 10 → 4)"),
        ({"seeds": 3}, "teacher (seeds 2 → 3); student (seeds 2 → 3)"),
        ({"max_steps": 30}, "distill-Random (max_steps 20 → 30); distill-ALKDRec (max_steps 20 → 30)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"{listed}; expected the same options, --overwrite")):
            reproduce.run_pipeline(settings(out, **changes))
    assert {file: file.read_bytes() for file in before} == before


def test_another_budget_selects_and_distills_again_with_overwrite_but_does_not_train_again(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    before = json.loads((out / "stages.json").read_text())
    reproduce.run_pipeline(settings(out, budget=30, overwrite=True))
    assert "overwrite" not in json.loads((out / "config.json").read_text())
    after = json.loads((out / "stages.json").read_text())
    changed = {stage for stage in before if before[stage] != after[stage]}
    assert changed >= {"selection", "rankings", "distill-Random", "distill-ALKDRec", "ranks"}
    assert not changed & {"teacher", "student", "training_free", "difficulty", "policy"}


def test_the_lists_of_a_method_are_computed_once_and_not_for_a_finished_run(finished, tmp_path, monkeypatch):
    made, lists_for = [], methods.lists_for

    def counted(run, method):
        made.append(method)
        return lists_for(run, method)

    monkeypatch.setattr(methods, "lists_for", counted)
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    reproduce.run_pipeline(settings(out))
    assert made == []
    reproduce.run_pipeline(settings(out, methods="ALKDRec,Popularity lists"))
    assert made == ["ALKDRec", "Popularity lists"]
    before, after = (json.loads((folder / "stages.json").read_text()) for folder in (finished[0], out))
    assert before["distill-ALKDRec"] == after["distill-ALKDRec"], "its lists are the same as before"


def test_the_cost_of_a_run_is_measured(finished):
    costs = efficiency.measure(efficiency.Efficiency(run=finished[0], rounds=1))
    student, teacher = costs["models"]["Student"], costs["models"]["Teacher"]
    assert teacher["parameters"] * student["width"] == student["parameters"] * teacher["width"]
    assert student["bytes"] == 4 * student["parameters"] == costs["models"]["ALKDRec"]["bytes"]
    assert 0.9 * student["parameters"] < student["nonzero"] <= student["parameters"]
    # 1,270 tokens to read at 10 dollars a million and 150 to write at 30.
    assert float(costs["dollars_for_sessions"]["40"]) == pytest.approx(40 * 0.0172)
    assert len(costs["dollars_for_sessions"]) == 2


def test_ctrl_c_keeps_finished_stages_and_leaves_no_partial_output(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def interrupt(self, role):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages.Run, "train_stage", interrupt)
        with pytest.raises(SystemExit) as stop, console.cli_errors():
            reproduce.run_pipeline(settings(out))
    assert stop.value.code == 130
    assert list(json.loads((out / "stages.json").read_text())) == ["training_free"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "realeased:x:ML"}, "'realeased:x:ML'; expected one of synthetic"),
        ({"data": "released:nowhere:ML"}, "nowhere"),
        ({"data": "released:nowhere:Books"}, "'Books'; expected one of ML, Games"),
        ({"backbone": "gru4rec"}, "backbone is 'gru4rec'; expected 'fpmc'"),
        ({"mode": "paper"}, "--mode is 'paper'; expected 'clean' or 'released'"),
        ({"selection": "released"}, "--selection released needs --data released:PATH:NAME"),
        ({"targets": "second"}, "--targets is 'second'; expected 'last' or 'first' or 'all'"),
        ({"mode": "released", "seen": "keep"}, "--mode released with --seen keep and --targets last; expected exclude"),
        ({"seeds": 0}, "--seeds is 0; expected at least 1"),
        ({"teacher_dim": 10**12}, "--teacher-dim is 1000000000000; expected from 1 to 65536"),
        ({"seed": -1}, "--seed is -1; expected from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed is 4294967296; expected from 0"),
        ({"rankings": pathlib.Path("/dev/zero")}, "--rankings: /dev/zero: is no regular file"),
        ({"rankings": pathlib.Path("nowhere")}, "--rankings: nowhere: no such file"),
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


def test_sources_are_parsed():
    assert registry.parse_source("released:a:b:ML").path == "a:b"
    assert registry.parse_source("synthetic:7").arguments == ("7",)


@pytest.mark.slow
def test_on_synthetic_data_popularity_is_below_the_student_the_student_below_the_teacher_and_lists_help(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["quickstart", "--out", str(tmp_path / "run")])
    quickstart.main()
    methods = json.loads((tmp_path / "run" / "metrics.json").read_text())["methods"]
    recall = {name: columns["recall@10"]["mean"] for name, columns in methods.items()}
    assert 1.5 * recall["Popularity"] < recall["Student"]
    assert 1.3 * recall["Student"] < recall["Teacher"]
    assert 1.1 * recall["Student"] < min(recall["Random"], recall["ALKDRec"])


@pytest.mark.slow
def test_released_mode_runs_on_the_authors_data(release, tmp_path):
    options = {"seeds": 1, "max_steps": 20, "teacher_dim": 10, "budget": 40, "mode": "released"}
    methods = "ALKDRec,TR,True labels,Shuffled lists"
    ml = Settings(data=f"released:{release}:ML", backbone="fpmc", out=tmp_path / "run", methods=methods, **options)
    numbers = reproduce.run_pipeline(ml)
    assert {"Student", "ALKDRec", "TR", "True labels", "Shuffled lists"} <= numbers["methods"].keys()
    assert "ndcg_released@10" in numbers["methods"]["ALKDRec"]


@pytest.mark.slow
def test_a_table_is_tuned_trained_and_continued(tmp_path, monkeypatch):
    small = {"seeds": 1, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own", "trials": 2}
    args = tables.TableArgs(data=("synthetic",), out=tmp_path, backbones=("fpmc",), **small)
    rows = tables.make_table(args, "table1", "FTD,ALKDRec,Tuned ALKDRec")
    run = json.loads((tmp_path / "table1.json").read_text())[0]
    assert {name: tuning["trials"] for name, tuning in run["tuned"].items()} == {"FTD": 2, "Tuned ALKDRec": 2}
    table = (tmp_path / "table1.md").read_text()
    assert "synthetic FPMC Tuned ALKDRec: learning_rate_scale" in table
    assert "synthetic FPMC FTD: weight" in table

    def refuse(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(stages.training, "fit", refuse)
    assert tables.make_table(args, "table1", "FTD,ALKDRec,Tuned ALKDRec") == rows


@pytest.mark.slow
def test_every_method_runs(tmp_path):
    numbers = reproduce.run_pipeline(settings(tmp_path / "run", methods="all", seeds=1))
    assert numbers["methods"].keys() >= set(METHODS)
    again = reproduce.run_pipeline(settings(tmp_path / "run", methods="RD,DSL", seeds=1))
    assert again["methods"]["DSL"] == numbers["methods"]["DSL"], "reused, not trained again"
