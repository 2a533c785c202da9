"""The experiments as a user runs them: files, reuse, resumption, and errors of one line."""

import dataclasses
import json
import re
import shutil
import sys

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines, selection
from alkd_jax.data.readers import registry
from alkd_jax.serving import export
from experiments import efficiency, quickstart, reproduce
from experiments.pipeline import console, methods, stages
from experiments.pipeline.methods import METHODS, PAPER_SELECTIONS
from experiments.pipeline.settings import Settings
from experiments.pipeline.student_scores import student_scores
from experiments.reporting import beyond_accuracy, figure_options, results, tables
from tests.helpers import browser

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
        assert columns.keys() >= {*results.COLUMNS, *beyond_accuracy.LIST_COLUMNS, "tied", "stratified_recall@10"}, name
        for column in columns.values():
            assert column["mean"] == pytest.approx(sum(column["values"]) / len(column["values"]))
    assert len(written["methods"]["ALKDRec"]["recall@10"]["values"]) == 2


@pytest.mark.slow
def test_a_profile_is_written_beside_the_run_and_changes_nothing_of_it(finished, tmp_path):
    out, _ = finished
    copy, profile = tmp_path / "run", tmp_path / "profile"
    shutil.copytree(out, copy)
    config = (copy / "config.json").read_bytes()
    reproduce.run_pipeline(settings(copy, profile=profile))
    assert [path.stat().st_size > 0 for path in profile.rglob("*.xplane.pb")] == [True]
    assert (copy / "config.json").read_bytes() == config.replace(bytes(out), bytes(copy))


def test_a_profile_goes_to_no_file(tmp_path):
    (tmp_path / "file").write_text("a note")
    with pytest.raises(ValueError, match="file, which is a file; expected a folder"):
        reproduce.run_pipeline(settings(tmp_path / "run", profile=tmp_path / "file"))


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
    assert {method: len(set(ids)) for method, ids in chosen.items()} == dict.fromkeys(PAPER_SELECTIONS, 40)
    assert [path.name for path in out.glob(".*")] == [".lock"], "no partial output remains"


@pytest.mark.slow
def test_active_learning_is_added_to_a_finished_run(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    before, untouched = (json.loads((out / f"{name}.json").read_text()) for name in ("selection", "stages"))
    numbers = reproduce.run_pipeline(settings(out, methods="short,Entropy"))
    chosen = json.loads((out / "selection.json").read_text())
    assert {name: chosen[name] for name in before} == before
    assert "Entropy" in numbers["methods"]
    after = json.loads((out / "stages.json").read_text())
    kept = ("teacher", "student", "difficulty", "policy", "distill-Random", "distill-ALKDRec")
    assert {name: after[name] for name in kept} == {name: untouched[name] for name in kept}
    run = stages.Run.reopen(out, readonly=True)
    entropy = np.asarray(selection.entropy(student_scores(run, np.arange(len(run.dataset.train)))[1]))
    assert len(set((rows := run.dataset.train.rows_of(np.array(chosen["Entropy"]))).tolist())) == 40
    assert entropy[rows].min() >= np.delete(entropy, rows).max()
    np.testing.assert_array_equal(run.load_lists("Entropy").session_id, chosen["Entropy"])


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


@pytest.mark.slow
def test_another_protocol_ranks_a_finished_run_again_without_training(finished, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    changes = r"\(seen 'exclude' → 'keep', targets 'last' → 'all'\)"
    with pytest.raises(ValueError, match=f"training_free {changes}; ranks {changes}; list_metrics {changes}"):
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
    assert sum(part["queries"] for part in numbers["groups"].values()) == 3 * num_queries, "in three partitions"


def test_metrics_of_lists_are_those_of_the_top_items(finished):
    out, numbers = finished
    run = stages.Run.reopen(out, readonly=True)
    dataset = run.dataset
    counts = np.bincount(dataset.train_sequences.items, minlength=dataset.num_items + 1)
    counted = baselines.count(dataset.train_sequences, dataset.num_items)
    lists = {
        "Student": np.asarray(run.candidates(dataset.test, num=10, name="student").items),
        "ALKDRec": np.asarray(run.candidates(dataset.test, num=10, name="distilled/ALKDRec").items),
        "Session-kNN": baselines.top_k(baselines.method("session_knn")(counted), counted, dataset.test, 10)[0],
    }
    for name, items in lists.items():
        found = {metric: numbers["methods"][name][metric]["values"][0] for metric in beyond_accuracy.LIST_COLUMNS}
        assert found["coverage@10"] == pytest.approx(len(set(items.ravel().tolist())) / dataset.num_items)
        assert found["popularity@10"] == pytest.approx(counts[items].mean())
        assert found["novelty@10"] == pytest.approx(-np.log2(np.maximum(counts[items], 1) / counts.sum()).mean())
        assert 0 < found["gini@10"] < 1


def test_a_run_that_was_finished_before_it_had_metrics_of_lists_only_adds_them(finished, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    for name in ("list_metrics.json", "training_free_lists.json"):
        (out / name).unlink()
    before = json.loads((out / "stages.json").read_text())
    former = {name: record for name, record in before.items() if name != "list_metrics"}
    record, ranks = before["training_free"], ["training_free_ranks.npz", "training_free_tied.json"]
    former["training_free"] = record | {"outputs": ranks, "sha256": {name: record["sha256"][name] for name in ranks}}
    (out / "stages.json").write_text(json.dumps(former))
    monkeypatch.setattr(stages.training, "fit", None)
    assert reproduce.run_pipeline(settings(out)) == finished[1]
    after = json.loads((out / "stages.json").read_text())
    assert {stage for stage in before if before[stage] != after[stage]} <= {"training_free", "list_metrics"}


def test_the_report_refers_to_no_other_file_and_says_how_it_was_made(finished):
    out, numbers = finished
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not [tag for tag in ("<script src", "<link", 'src="http', "@import") if tag in page]
    assert "python -m experiments.reproduce --data synthetic --backbone fpmc" in page
    assert not re.findall(r">\s*Teacher\b|conventional teacher|simulated teacher", page)
    assert numbers["lists"] == "simulated LLM, no language model"
    quality = json.loads((out / "teacher_quality.json").read_text())
    assert [part["usable"] for part in quality["selections"].values()] == [40, 40]
    assert f"these are {quality['asked']} different sessions, of which all have a usable list." in page
    assert {path.stem for path in (out / "figures").iterdir()} == {"learning_curves", "methods", "selected_sessions"}


@pytest.mark.browser
@pytest.mark.slow
def test_the_report_fits_a_phone_and_its_models_list_what_recommender_lists(finished, tmp_path):
    out, _ = finished
    run, page = stages.Run.reopen(out, readonly=True), (out / "report.html").read_text()
    sessions = [row[row > 0].tolist() for row in np.asarray(run.dataset.test.items)[:200]]
    script = f"""const open = () => document.querySelectorAll(":popover-open").length;
    document.querySelectorAll("details").forEach((each) => (each.open = true));
    answer = {{
      open: [open(), (document.querySelector("button.term").click(), open())],
      widths: [document.documentElement.scrollWidth, innerWidth],
      lists: {json.dumps(sessions)}.map((items) => MODELS.map((model) => recommend(model, items, 10).map((e) => e[0]))),
    }};"""
    answer, wide = (browser.in_browser(page, script, tmp_path, width=width) for width in (390, 1120))
    assert answer["widths"][0] <= answer["widths"][1] <= 500 < wide["widths"][0] <= wide["widths"][1]
    assert answer["open"] == [0, 1]
    for column, path in enumerate(("distilled/ALKDRec", "student", "teacher")):
        student = export.recommender(run.model_for(path), run.first_params(path), run.dataset)
        found = [[student.item_ids[item] for item in lists[column]] for lists in answer["lists"]]
        assert found == [[each.item_id for each in student.rank(items, 10)] for items in sessions]


def test_a_second_run_trains_nothing_and_tells_the_same_numbers_with_a_leak_of_the_split(finished, monkeypatch, capsys):
    (out, numbers), read = finished, registry.read
    leak = {"leak_warning": "training <sees> test"}
    monkeypatch.setattr(registry, "read", lambda source: dataclasses.replace(read(source), report=leak))
    monkeypatch.setattr(stages.training, "fit", None)
    assert reproduce.run_pipeline(settings(out)) == numbers
    assert "warning: training <sees> test\n" in capsys.readouterr().out
    assert "training &lt;sees&gt; test" in (out / "report.html").read_text()


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
        (
            {"list_loss": "ranknet"},
            "distill-Random (list_loss default → 'ranknet'); distill-ALKDRec (list_loss default → 'ranknet')",
        ),
        ({"teacher": "neighbor"}, "rankings (teacher 'simulated' → 'neighbor')"),
        ({"student_dim": 4}, "student (dim 10 → 4)"),
        ({"seeds": 3}, "teacher (seeds 2 → 3); student (seeds 2 → 3)"),
        ({"max_steps": 30}, "distill-Random (max_steps 20 → 30); distill-ALKDRec (max_steps 20 → 30)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"{listed}; expected the same options, --overwrite")):
            reproduce.run_pipeline(settings(out, **changes))
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["esasrec", "gru4rec", "srgnn"])
def test_a_teacher_may_have_another_backbone_than_its_students(tmp_path, backbone):
    options = {"teacher_backbone": backbone, "max_steps": 60, "methods": "DE,ALKDRec"}
    numbers = reproduce.run_pipeline(settings(tmp_path / "run", **options))
    recall = {name: numbers["methods"][name]["recall@10"]["mean"] for name in ("Teacher", "Student", "DE", "ALKDRec")}
    assert all(0 <= value <= 1 for value in recall.values())
    assert recall["Teacher"] > 0.05, "it learned"
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (stored["backbone"], stored["teacher_backbone"]) == ("fpmc", backbone)
