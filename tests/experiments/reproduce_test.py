"""The experiments as a user runs them: files, reuse, resumption, and errors of one line."""

import json
import shutil
import sys

import pytest

from experiments import all as everything
from experiments import efficiency, fig3_ratios, leaderboard, query_llm, quickstart, reproduce, table1, table2, tune
from experiments.pipeline import distill_methods, stages
from experiments.pipeline.methods import DISTILLED, SELECTIONS
from experiments.pipeline.settings import TEACHERS, Settings
from experiments.pipeline.sources import parse_source
from experiments.reporting import console, tables

METHODS = {
    "Student",
    "Teacher",
    "Random",
    "ALKDRec",
    "Popularity",
    "Markov",
    "Co-occurrence",
    "Item-kNN",
    "Session-kNN",
}


def settings(out, **changes):
    small = {"seeds": 2, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own"}
    return Settings(data="synthetic", backbone="fpmc", out=out, **(small | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy"
    return out, reproduce.run_pipeline(settings(out))


def test_metrics_are_written_as_promised(finished):
    out, numbers = finished
    written = json.loads((out / "metrics.json").read_text())
    assert written == json.loads(json.dumps(numbers))
    assert (written["dataset"], written["backbone"], written["mode"], written["seeds"]) == (
        "synthetic",
        "fpmc",
        "clean",
        2,
    )
    assert written["methods"].keys() >= METHODS
    for name, columns in written["methods"].items():
        assert columns.keys() >= {"recall@5", "ndcg@5", "recall@10", "ndcg@10", "mrr"}, name
        for column in columns.values():
            assert column["mean"] == pytest.approx(sum(column["values"]) / len(column["values"]))
    assert len(written["methods"]["ALKDRec"]["recall@10"]["values"]) == 2


def test_a_game_that_cannot_be_won_is_refused(finished, tmp_path):
    out, _ = finished
    shutil.copytree(out, tmp_path / "lost")
    with pytest.raises(
        ValueError, match=r"\(1, 3, 6\): the game is lost \(value -0\.5\), its policy asks about 1 of 40"
    ):
        reproduce.run_pipeline(settings(tmp_path / "lost", ratios=(1, 3, 6)))


def test_every_ratio_of_the_figure_is_a_game_that_can_be_won():
    assert all(effective + similar / 2 > incorrect / 2 for effective, similar, incorrect in fig3_ratios.RATIOS)


def test_a_run_is_a_folder_of_named_files(finished):
    out, _ = finished
    names = [
        "config.json",
        "data.json",
        "difficulty.npz",
        "policy.npz",
        "selection.json",
        "rankings.jsonl",
        "ranks.npz",
    ]
    assert all((out / name).exists() for name in names)
    chosen = json.loads((out / "selection.json").read_text())
    assert {method: len(set(ids)) for method, ids in chosen.items()} == dict.fromkeys(SELECTIONS, 40)
    assert [path.name for path in out.glob(".*")] == [".lock"], "nothing half-written is left"


def test_a_mesh_is_no_part_of_a_run_and_needs_its_devices(finished):
    out, _ = finished
    assert "mesh" not in json.loads((out / "config.json").read_text())
    with pytest.raises(ValueError, match=r"the mesh data=64,model=2 needs 128 devices; there are \d+ \(cpu\)"):
        settings(out, mesh="data=64,model=2").check()
    with pytest.raises(ValueError, match="mesh is 'data=two'; expected numbers from 1"):
        settings(out, mesh="data=two").check()
    one = reproduce.run_pipeline(settings(out, mesh="data=1"))
    assert one["methods"].keys() >= METHODS


def test_the_report_stands_alone(finished):
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


def test_another_budget_draws_and_distils_again_but_does_not_train_again(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    before = json.loads((out / "hops.json").read_text())
    reproduce.run_pipeline(settings(out, budget=30))
    after = json.loads((out / "hops.json").read_text())
    changed = {hop for hop in before if before[hop] != after[hop]}
    assert changed >= {"selection", "rankings", "distil-Random", "distil-ALKDRec", "ranks"}
    assert not changed & {"teacher", "student", "neighbors", "difficulty", "policy"}


def test_a_methods_lists_are_put_together_once_and_not_for_a_run_that_is_kept(finished, tmp_path, monkeypatch):
    asked, lists_of = [], distill_methods.lists_of

    def counted(run, method):
        asked.append(method)
        return lists_of(run, method)

    monkeypatch.setattr(distill_methods, "lists_of", counted)
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    reproduce.run_pipeline(settings(out))
    assert asked == []
    reproduce.run_pipeline(settings(out, methods="ALKDRec,Popularity lists"))
    assert asked == ["ALKDRec", "Popularity lists"]
    before, after = (json.loads((folder / "hops.json").read_text()) for folder in (finished[0], out))
    assert before["distil-ALKDRec"] == after["distil-ALKDRec"], "its lists are the same as before"


def test_what_a_run_costs_is_counted(finished):
    counted = efficiency.account(efficiency.Efficiency(run=finished[0], rounds=1))
    student, teacher = counted["models"]["Student"], counted["models"]["Teacher"]
    assert teacher["parameters"] * student["width"] == student["parameters"] * teacher["width"]
    assert student["bytes"] == 4 * student["parameters"] == counted["models"]["ALKDRec"]["bytes"]
    assert 0.9 * student["parameters"] < student["nonzero"] <= student["parameters"]
    # 1,270 tokens to read at 10 dollars a million and 150 to write at 30.
    assert float(counted["dollars_for_sessions"]["40"]) == pytest.approx(40 * 0.0172)
    assert len(counted["dollars_for_sessions"]) == 2


def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_half_done(tmp_path, monkeypatch):
    out = tmp_path / "run"

    def interrupt(self, role):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages.Run, "hop_train", interrupt)
        with pytest.raises(SystemExit) as stop, console.cli_errors():
            reproduce.run_pipeline(settings(out))
    assert stop.value.code == 130
    assert list(json.loads((out / "hops.json").read_text())) == ["neighbors"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "realeased:x:ML"}, "--data is 'realeased:x:ML'; expected synthetic"),
        ({"data": "released:nowhere:ML"}, "nowhere"),
        ({"data": "released:nowhere:Books"}, "'Books', expected one of ML, Games"),
        ({"backbone": "gru4rec"}, "backbone is 'gru4rec'; expected one of fpmc"),
        ({"mode": "paper"}, "--mode is 'paper'; expected clean or released"),
        ({"selection": "released"}, "--selection released needs --data released:PATH:NAME"),
        ({"seeds": 0}, "--seeds is 0; expected at least 1"),
        ({"data": "prepared:nowhere"}, "--data prepared:PATH needs --teacher"),
        ({"data": "prepared:nowhere", "mode": "paper"}, "--mode is 'paper'"),
        ({"data": "prepared:nowhere", "teacher": "oracle"}, "--teacher is 'oracle'; expected replay or simulated"),
        ({"data": "prepared:nowhere", "teacher": "replay"}, "--teacher replay needs --rankings FILE"),
        ({"data": "prepared:nowhere", "teacher": "simulated"}, "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_written(tmp_path, capsys, changes, message):
    base = {"data": "synthetic", "backbone": "fpmc", "out": tmp_path / "run", "selection": "own"}
    with pytest.raises(SystemExit) as stop, console.cli_errors():
        reproduce.run_pipeline(Settings(**(base | changes)))
    assert stop.value.code == 2
    told = capsys.readouterr().out.strip()
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


PREPARED = ["--data", "prepared:nowhere"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (reproduce, [*PREPARED, "--backbone", "fpmc", "--selection", "own"]),
        (table1, [*PREPARED, "--selection", "own"]),
        (table2, PREPARED),
        (everything, [*PREPARED, "--selection", "own"]),
        *((figure, [*PREPARED, "--backbone", "fpmc"]) for figure in everything.FIGURES),
        (leaderboard, PREPARED),
    ],
    ids=lambda value: getattr(value, "__name__", "").removeprefix("experiments."),
)
def test_every_command_asks_who_ranks_prepared_data(tmp_path, capsys, monkeypatch, command, arguments):
    line = [command.__name__, *arguments, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as stop:
        command.main()
    told = capsys.readouterr().out.strip()
    assert stop.value.code == 2
    assert "\n" not in told
    assert "--data prepared:PATH needs --teacher" in told
    assert all(f"{name}, {what}" in told for name, what in TEACHERS.items())
    assert not (tmp_path / "run").exists()
    # With a teacher the next thing missing is the data.
    monkeypatch.setattr(sys, "argv", [*line, "--selection", "own"] if command is not leaderboard else line)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--teacher", "simulated"])
    with pytest.raises(SystemExit):
        command.main()
    assert "nowhere" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "more"), [(tune, ()), (efficiency, ()), (query_llm, ("estimate", "--model", "m"))])
def test_a_run_that_never_said_who_ranks_prepared_data_is_refused(tmp_path, capsys, monkeypatch, module, more):
    config = {"data": "prepared:nowhere", "backbone": "fpmc", "selection": "own", "ratios": [1, 5, 4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", [module.__name__, *more, "--run", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        module.main()
    told = capsys.readouterr().out.strip()
    assert stop.value.code == 2
    assert "needs --teacher" in told
    assert "\n" not in told


def test_the_datas_own_teacher_stands_where_there_is_one(tmp_path):
    def ranker(data, **options):
        return Settings(data, "fpmc", tmp_path, **options).ranker

    assert ranker("synthetic") == ranker("synthetic:3") == "simulated"
    assert ranker("released:x:ML") == "replay"
    assert ranker("prepared:x", rankings=tmp_path / "lists.jsonl") == "replay"
    assert ranker("prepared:x", teacher="neighbor") == "neighbor"


def test_sources_are_parsed():
    assert parse_source("released:a:b:ML").path == "a:b"
    assert parse_source("synthetic:7").seed == 7


@pytest.mark.slow
def test_on_the_built_in_world_popularity_is_below_the_student_the_student_below_the_teacher_and_lists_help(
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
def test_the_authors_rules_run_on_the_authors_data(release, tmp_path):
    options = {"seeds": 1, "max_steps": 20, "teacher_dim": 10, "budget": 40, "mode": "released"}
    methods = "ALKDRec,TR,True labels,Shuffled lists"
    asked = Settings(data=f"released:{release}:ML", backbone="fpmc", out=tmp_path / "run", methods=methods, **options)
    numbers = reproduce.run_pipeline(asked)
    assert {"Student", "ALKDRec", "TR", "True labels", "Shuffled lists"} <= numbers["methods"].keys()
    assert "ndcg_released@10" in numbers["methods"]["ALKDRec"]


@pytest.mark.slow
def test_a_table_is_searched_for_trained_and_taken_up_again(tmp_path, monkeypatch):
    small = {"seeds": 1, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own", "trials": 2}
    asked = tables.Tables(data=("synthetic",), out=tmp_path, backbones=("fpmc",), **small)
    rows = tables.make(asked, "table1", "FTD,ALKDRec,Tuned ALKDRec")
    held = json.loads((tmp_path / "table1.json").read_text())[0]
    assert {name: search["trials"] for name, search in held["tuned"].items()} == {"FTD": 2, "Tuned ALKDRec": 2}
    told = (tmp_path / "table1.md").read_text()
    assert "synthetic FPMC Tuned ALKDRec: rate" in told
    assert "synthetic FPMC FTD: weight" in told

    def refuse(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(stages.training, "fit", refuse)
    assert tables.make(asked, "table1", "FTD,ALKDRec,Tuned ALKDRec") == rows


@pytest.mark.slow
def test_every_method_runs(tmp_path):
    numbers = reproduce.run_pipeline(settings(tmp_path / "run", methods="all", seeds=1))
    assert numbers["methods"].keys() >= set(DISTILLED)
    again = reproduce.run_pipeline(settings(tmp_path / "run", methods="RD,DSL", seeds=1))
    assert again["methods"]["DSL"] == numbers["methods"]["DSL"], "kept, not trained again"
