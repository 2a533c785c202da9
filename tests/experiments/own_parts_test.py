"""Parts from outside through the whole pipeline: backbone, teacher, selection and distillation methods of a user."""

import json
import shutil
import sys

import numpy as np
import pytest

from experiments import export, leaderboard, reproduce
from experiments.pipeline import console, stages
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings
from experiments.reporting import published, tables

MODELS = """
import flax.linen as nn
import jax.numpy as jnp


class LastItem(nn.Module):
    num_items: int
    dim: int

    def setup(self):
        shape = (self.num_items + 1, self.dim)
        self.inputs = self.param("inputs", nn.initializers.normal(0.1), shape)
        self.outputs = self.param("outputs", nn.initializers.normal(0.1), shape)

    def __call__(self, items, mask, *, train=False):
        last = jnp.maximum(mask.sum(1) - 1, 0)
        return self.inputs[jnp.take_along_axis(items, last[:, None], axis=1)[:, 0]]

    def item_embeddings(self):
        return self.outputs.at[0].set(0.0)
"""

METHODS = """
import alkd_jax as alkd

calls = []


def plain(key, model, teacher, train, validation, **fit_options):
    calls.append({"teacher": teacher, "options": fit_options})
    return alkd.fit(key, model, train, validation, **fit_options)


def from_lists(key, model, teacher, train, validation, *, rankings, dataset, **fit_options):
    calls.append({"rankings": rankings, "titles": dataset.titles})
    return alkd.fit(key, model, train, validation, **fit_options)


def nothing(key, model, teacher, train, validation, **fit_options):
    pass


def narrow(key, model, teacher):
    pass
"""

TEACHERS = """
import numpy as np

import alkd_jax as alkd


class Backwards:
    def __init__(self, dataset):
        self.num_items = dataset.num_items

    def rank(self, sessions, candidates):
        lists = alkd.Rankings.from_top_k(sessions.session_id, candidates[:, ::-1])
        return lists, {"asked": len(sessions), "missing": []}


class Silent:
    def __init__(self, dataset):
        pass


class Wordy(Silent):
    def rank(self, sessions, candidates):
        return "no lists"
"""

SELECTIONS = """
import numpy as np


def last(key, sessions, difficulty, *, num):
    assert len(sessions) == len(difficulty)
    return np.arange(len(difficulty) - num, len(difficulty))


def twice(key, sessions, difficulty, *, num):
    return np.zeros(num, int)
"""

FILES = {"models": MODELS, "methods": METHODS, "teachers": TEACHERS, "selections": SELECTIONS}
PLAIN, FROM_LISTS, LAST = "ownparts.methods:plain", "ownparts.methods:from_lists", "ownparts.selections:last"


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """A package ``ownparts`` that can be imported."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "ownparts").mkdir()
    for name, text in FILES.items():
        (folder / "ownparts" / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder / "ownparts"


def settings(out, **changes):
    small = {"seeds": 2, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own"}
    parts = {
        "backbone": "ownparts.models:LastItem",
        "teacher": "ownparts.teachers:Backwards",
        "methods": f"{LAST},{PLAIN},ALKDRec,{FROM_LISTS}",
        "precision": "tf32",
    }
    return Settings(data="synthetic", out=out, **(small | parts | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "own"
    return out, reproduce.run_pipeline(settings(out))


def test_the_results_and_the_report_name_the_parts(finished):
    out, numbers = finished
    assert (numbers["backbone"], list(numbers["methods"])[2:6]) == (
        "ownparts.models:LastItem",
        ["ALKDRec", LAST, PLAIN, FROM_LISTS],
    )
    page = (out / "report.html").read_text()
    assert all(name in page for name in (LAST, PLAIN, FROM_LISTS, "LastItem", "ownparts.teachers:Backwards"))
    assert "ownparts.models:LastItem" in tables.result_rows(numbers, published.published_results("table1"))[0]


def test_names_of_files_and_folders_hold_no_colon(finished):
    out, _ = finished
    names = {str(path.relative_to(out)) for path in out.rglob("*")}
    assert not [name for name in names if ":" in name]
    assert {"distilled/ownparts.methods.plain", "distilled/ownparts.selections.last.history.npz"} <= names


def test_the_backbones_parameters_are_restored(finished):
    run = RunContext.reopen(finished[0], readonly=True)
    params = run.params("distilled/ownparts.methods.plain")["params"]
    num_rows = run.dataset.num_items + 1
    assert {name: leaf.shape for name, leaf in params.items()} == {
        "inputs": (2, num_rows, 10),
        "outputs": (2, num_rows, 10),
    }
    assert run.params("teacher")["params"]["inputs"].shape == (2, num_rows, 12)


def test_the_teacher_ranks_and_the_students_learn_its_lists(finished):
    run = stages.Run.reopen(finished[0], readonly=True)
    candidates = [json.loads(line) for line in (finished[0] / "candidates.jsonl").read_text().splitlines()]
    rankings = run.rankings()
    assert rankings.session_id.tolist() == [record["session_id"] for record in candidates]
    assert rankings.items.tolist() == [record["items"][::-1] for record in candidates]
    quality = json.loads((finished[0] / "teacher_quality.json").read_text())
    assert (quality["teacher"], quality["usable"]) == ("ownparts.teachers:Backwards", len(candidates))


def test_the_selections_sessions_are_ranked_and_distilled(finished):
    run = stages.Run.reopen(finished[0], readonly=True)
    expected = run.dataset.train.session_id[-40:].tolist()
    assert json.loads((finished[0] / "selection.json").read_text())[LAST] == expected
    assert run.load_lists(LAST).session_id.tolist() == expected
    assert set(expected) <= set(run.rankings().session_id.tolist())


def test_a_method_gets_the_teacher_the_options_of_the_run_and_what_it_names(finished):
    run = stages.Run.reopen(finished[0], readonly=True)
    plain, from_lists = sys.modules["ownparts.methods"].calls
    options = plain["options"]
    assert (options["seeds"], options["max_steps"], options["precision"]) == (2, 20, "tf32")
    assert options["loss"] == run.objective(run.model("student"))
    assert {"progress", "checkpoints", "mesh"} <= options.keys()
    assert plain["teacher"].model == run.model("teacher")
    np.testing.assert_array_equal(
        plain["teacher"].params["params"]["inputs"], run.params("teacher")["params"]["inputs"][0]
    )
    np.testing.assert_array_equal(from_lists["rankings"].items, run.load_lists("ALKDRec").items)
    assert from_lists["titles"] == run.dataset.titles
    # The same random key and the same training as the plain student's, but for its patience.
    ranks = dict(np.load(finished[0] / "ranks.npz"))
    np.testing.assert_array_equal(ranks[PLAIN], ranks["Student"])


def test_a_precision_belongs_to_the_run(finished):
    assert json.loads((finished[0] / "run.json").read_text())["precision"] == "tf32"
    with pytest.raises(ValueError, match="precision is 'tf32', not 'float32'"):
        reproduce.run_pipeline(settings(finished[0], precision="float32"))


@pytest.mark.slow
def test_a_stage_runs_again_when_the_file_of_its_part_changes(finished, tmp_path, package):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    before = json.loads((out / "stages.json").read_text())
    reproduce.run_pipeline(settings(out))
    assert json.loads((out / "stages.json").read_text()) == before, "reused"
    with (package / "methods.py").open("a") as file:
        file.write("# changed\n")
    reproduce.run_pipeline(settings(out))
    after = json.loads((out / "stages.json").read_text())
    changed = {name for name in before if before[name]["digest"] != after[name]["digest"]}
    own = {"distill-ownparts.methods.plain", "distill-ownparts.methods.from_lists"}
    assert changed == own | {"ranks", "list_metrics", "tests", "metrics"}
    (package / "methods.py").write_text(METHODS)


def test_exporting_an_own_backbone_is_refused_in_one_line(finished, tmp_path, capsys):
    with pytest.raises(SystemExit), console.cli_errors():
        export.export_run(export.ExportSettings(run=finished[0], out=tmp_path / "shipped"))
    output = capsys.readouterr().err.strip()
    assert output.startswith("error: type of model is LastItem; expected one of fpmc, stamp, attmix, late, gru4rec")
    assert "\n" not in output
    assert not (tmp_path / "shipped").exists()


def test_tables_and_the_leaderboard_have_a_folder_for_an_own_backbone(tmp_path):
    args = tables.TableArgs(
        ("synthetic",), tmp_path, ("ownparts.models:LastItem",), selection="own", precision="bfloat16"
    )
    (made,) = args.all_settings("short")
    made.check()
    assert (made.out.name, made.precision) == ("synthetic-ownparts.models.LastItem-clean", "bfloat16")
    (made,) = leaderboard.pipeline_settings(
        leaderboard.Leaderboard("synthetic", backbones=("ownparts.models:LastItem",)), tmp_path
    )
    assert (made.backbone, made.out.name) == ("ownparts.models:LastItem", "ownparts.models.LastItem")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "ownparts.models:Absent"}, "has no attribute 'Absent'; expected a Linen module class"),
        ({"backbone": "absentparts:Encoder"}, "backbone is 'absentparts:Encoder'; No module named 'absentparts'"),
        ({"teacher": "ownparts.absent:Teacher"}, "--teacher is 'ownparts.absent:Teacher'; No module named"),
        (
            {"teacher": "ownparts.teachers:np"},
            "--teacher is 'ownparts.teachers:np', of type module; expected a class or",
        ),
        (
            {"methods": "ALKDRec,ownparts.methods:narrow"},
            "'ownparts.methods:narrow', of type function; expected distill(key",
        ),
        ({"methods": "ownparts.methods:calls"}, "'ownparts.methods:calls', of type list; expected distill(key"),
        ({"methods": "ALKD"}, "a name in --methods is 'ALKD'; expected 'Random' or 'ALKDRec'"),
        ({"precision": "half"}, "--precision is 'half'; expected 'float32' or 'tf32' or 'bfloat16'"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line_before_anything_is_written(tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit), console.cli_errors():
        reproduce.run_pipeline(settings(tmp_path / "run", **changes))
    output = capsys.readouterr().err.strip()
    assert message in output
    assert "\n" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "ownparts.teachers:Silent"}, "made a Silent; expected rank(sessions, candidates) in it"),
        ({"teacher": "ownparts.teachers:Wordy"}, "ranked as str; expected a pair of Rankings and a report"),
        ({"methods": "ownparts.selections:twice"}, "selected int64[40]; expected 40 distinct indices from 0 to"),
        ({"methods": "ownparts.methods:nothing"}, "returned NoneType; expected the FitResult of alkd_jax.training.fit"),
    ],
)
def test_a_part_with_a_wrong_result_is_refused_in_one_line(finished, tmp_path, capsys, changes, message):
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    with pytest.raises(SystemExit), console.cli_errors():
        reproduce.run_pipeline(settings(out, overwrite=True, **changes))
    assert message in capsys.readouterr().err.splitlines()[-1]
