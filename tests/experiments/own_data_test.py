"""A user's own data: what the commands refuse in one line before anything is trained, and whose lists they name."""

import dataclasses

import numpy as np
import pytest

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import prepare
from alkd_jax.data.prepared_folder import save_prepared
from experiments.pipeline import dataset_checks, llm_settings
from experiments.pipeline.llm_options import LLMSettings
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings
from experiments.pipeline.teachers import TEACHERS, title_of
from experiments.reporting import figure_options, figures, published, tables


def own_log(*, titled=False):
    """60 sessions of 6 of 20 items, 12 users on 5 days."""
    item = np.concatenate([(start + np.arange(6)) % 20 for start in range(60)]).astype(np.int32)
    user = np.repeat(np.arange(12), 30).astype(np.int32)
    time = np.tile(np.repeat(np.arange(5) * 86_400_000, 6) + np.tile(np.arange(6) * 60_000, 5), 12)
    ids = tuple(f"sku/{number} é|*" for number in range(20))
    titles = {item_id: f"Song {number}: Rock" for number, item_id in enumerate(ids)} if titled else None
    users = tuple(f"user {number}" for number in range(12))
    return Interactions("plays odd.csv", user, item, time, None, users, ids, titles, {})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    save_prepared(path / "untitled", prepare(own_log()))
    save_prepared(path / "titled", prepare(own_log(titled=True)))
    return path


def own(folders, data="titled", run="run", **options):
    return Settings(f"prepared:{folders / data}", "fpmc", folders / run, **{"teacher": "simulated"} | options)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("titled", {"budget": 37}, r"--budget is 37, but plays odd\.csv has 36 training sessions; expected at most"),
        ("titled", {"budget": 36}, r"policy of ALKDRec selects among 35 of the 36 training sessions"),
        pytest.param(
            "titled",
            {"budget": 26, "methods": "RAD-BC"},
            r"policy of RAD-BC selects among 25 of the 36",
            marks=pytest.mark.slow,
        ),
        ("titled", {"ratios": (1, 3, 6)}, r"--ratios is \(1, 3, 6\), for which the value of the game is -0\.5"),
        ("titled", {"selection": "released"}, r"--selection released needs --data released:PATH:NAME"),
        ("untitled", {"teacher": "openai"}, r"plays odd\.csv has no titles, .*--columns item=NAME,title=NAME"),
    ],
)
def test_what_cannot_be_done_with_the_data_is_refused_before_anything_is_written(folders, data, options, message):
    with pytest.raises(ValueError, match=message):
        RunContext.open(own(folders, data, **options))
    assert not (folders / "run").exists()


def test_the_defaults_fit_small_data(folders):
    run = RunContext.open(own(folders, run="defaults"))
    assert run.settings.resolved_selection == "own"
    assert run.settings.budget == 36 // dataset_checks.SESSIONS_PER_QUESTION
    # Among 50 or 25 of 20 items every target is found, whatever the parameters are.
    assert [run.recall_at(50), run.recall_at(2)] == [5, 2]


def test_a_simulated_teacher_without_titles_warns(folders, capsys):
    dataset = prepare(own_log()).dataset()
    dataset_checks.announce(own(folders), dataset)
    assert "warning: plays odd.csv has no titles" in capsys.readouterr().out
    dataset_checks.announce(own(folders, teacher="neighbor"), dataset)
    dataset_checks.announce(own(folders), prepare(own_log(titled=True)).dataset())
    assert capsys.readouterr().out == ""


def test_every_question_needs_titles(folders, tmp_path):
    settings = LLMSettings(tmp_path, "some-model")
    with pytest.raises(ValueError, match="has no titles"):
        llm_settings.prompt_template(settings, prepare(own_log()).dataset())
    assert llm_settings.prompt_template(settings, prepare(own_log(titled=True)).dataset()).noun == "item"


def test_lists_of_no_language_model_say_so():
    titles = {name: title_of(name) for name in TEACHERS}
    without = {name for name, title in titles.items() if "no language model" in title}
    assert without == {"simulated", "conventional", "neighbor"}


def test_points_of_a_figure_that_need_more_data_are_left_out_with_a_line(folders, capsys):
    base = own(folders)
    points = figure_options.BudgetFigure("synthetic", "fpmc", folders / "f", budgets=(5, 50)).points
    assert figures.possible_points("fig4_budget", base, points) == {"5": {"budget": 5}}
    assert "fig4_budget: 50 is left out: --budget is 50, but plays odd.csv has 36" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"none of the points 50 is possible on plays odd\.csv"):
        figures.possible_points("fig4_budget", base, {"50": {"budget": 50}})


def test_ratios_of_points_are_texts(folders):
    options = figure_options.RatioFigure("synthetic", "fpmc", folders / "f", ratios=("1:5:4", "2:2:1"))
    assert options.points["2:2:1"] == {"ratios": (2, 2, 1)}
    wrong = dataclasses.replace(options, ratios=("1:5",))
    with pytest.raises(ValueError, match="--ratios has '1:5'; expected three whole numbers"):
        assert wrong.points is None
    assert figure_options.shared_settings(options, {}).ratios == (1, 5, 4)


def test_two_prepared_datasets_have_folders_of_their_own(folders):
    args = tables.TableArgs((f"prepared:{folders / 'titled'}", f"prepared:{folders / 'untitled'}"), folders / "t")
    first, second = (args.run_folder(data, "fpmc").name for data in args.data)
    assert first.endswith("_titled-fpmc-clean")
    assert second.endswith("_untitled-fpmc-clean")
    one = dataclasses.replace(args, data=args.data[:1])
    assert one.run_folder(one.data[0], "fpmc").name == "prepared-fpmc-clean"


def test_a_table_names_whose_lists_the_methods_learn_from():
    cell = {"mean": 0.5, "std": 0.0, "values": [0.5]}
    columns = dict.fromkeys(tables.METRICS, cell)
    run = {
        "dataset": "own",
        "backbone": "fpmc",
        "mode": "clean",
        "lists": title_of("simulated"),
        "methods": dict.fromkeys(("Student", "ALKDRec", "DE", "Popularity"), columns),
        "tests": [],
    }
    rows = tables.result_rows(run, published.published_results("table1"))
    column = tables.HEADINGS.index("lists")
    assert [row[column] for row in rows] == ["", "simulated LLM, no language model", "", ""]
