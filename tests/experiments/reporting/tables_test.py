"""Tables, figures and method names: the cells of a row, the marks of published numbers, the methods of a name."""

import csv

import numpy as np
import pytest

from alkd_jax.evaluation import Protocol
from alkd_jax.types import Rankings, Sessions
from experiments import tune
from experiments.pipeline import distill_methods, method_lists, methods
from experiments.pipeline.protocols import stored_protocol
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings
from experiments.reporting import figures, published, tables
from experiments.reporting.results import DEBIASED


def spread(*values):
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": list(values)}


def run_of(dataset, backbone, *names):
    columns = {metric: spread(0.01, 0.02) for metric in tables.METRICS} | {"ndcg_released@10": spread(0.005, 0.007)}
    test = {
        "method": "ALKDRec",
        "against": "Student",
        "metric": "recall@10",
        "difference": 0.0103,
        "interval": (0.007, 0.014),
        "p_randomization_holm": 0.0004,
    }
    return {
        "dataset": dataset,
        "backbone": backbone,
        "protocol": stored_protocol(Protocol()),
        "methods": dict.fromkeys(names, columns),
        "tests": [test, test | {"method": "DE", "p_randomization_holm": 0.2}, test | {"against": "Random"}],
    }


def row(table, run, method):
    cells = {cells[2]: cells for cells in tables.result_rows(run, published.published_results(table))}[method]
    assert len(cells) == len(tables.HEADINGS)
    return dict(zip(tables.HEADINGS, cells, strict=True))


def test_a_row_shows_our_result_beside_the_published_one():
    cells = row("table1", run_of("ML", "fpmc", "ALKDRec", "DE"), "ALKDRec")
    assert cells["recall@10"] == "0.0150 ± 0.0071"
    assert cells["published recall@10"] == "0.02150"
    assert cells["recall@10 − Student [95 %]"] == "+0.0103 [+0.0070, +0.0140]"
    assert cells["p (Holm)"] == "**<.001**"
    assert cells["hash-order ndcg@10"] == "0.0060 ± 0.0014"
    assert row("table1", run_of("ML", "fpmc", "DE"), "DE")["p (Holm)"] == "0.200"


def test_every_file_of_a_table_names_the_protocol(tmp_path):
    runs = [run_of("ML", "fpmc", "ALKDRec"), run_of("ML", "stamp", "DE")]
    runs[1]["protocol"] = stored_protocol(Protocol(targets="all", seen="keep"))
    runs[1]["methods"]["DE"] = runs[1]["methods"]["DE"] | {
        "coverage@10": spread(0.25, 0.75),
        DEBIASED: spread(0.5, 0.5),
    }
    tables.write_table(tmp_path, "table1", runs)
    names = [run["protocol"]["name"] for run in runs]
    page, latex = ((tmp_path / f"table1.{kind}").read_text() for kind in ("md", "tex"))
    assert all(name in page and name in latex.partition(r"\begin{tabular}")[0] for name in names)
    with open(tmp_path / "table1.csv", newline="") as file:
        assert [row["protocol"] for row in csv.DictReader(file)] == names
    assert "| ML        | STAMP      | DE       | 0.5000 ± 0.3536 |" in page.partition("## Beyond accuracy")[2]
    assert page.partition("## Beyond accuracy")[2].count("| ML ") == 1, "the other run does not know these metrics"


def test_implausible_published_numbers_are_marked():
    games = run_of("Games", "attmix", "Student", "FTD", "DE")
    assert row("table1", games, "FTD")["published recall@10"].endswith("‡"), "fits the other dataset's test size"
    student = row("table1", games, "Student")
    assert student["published ndcg@10"].endswith("‡"), "smaller than its ndcg@5"
    assert not student["published recall@10"].endswith("‡")
    assert not row("table1", games, "DE")["published recall@10"].endswith("‡")


def test_methods_that_the_paper_does_not_have_show_no_published_number():
    run = run_of("ML", "stamp", "Markov", "True labels")
    assert row("table2", run, "Markov")["published recall@10"] == ""
    assert row("table2", run, "*True labels*")["published recall@10"] == ""


def test_names_select_each_method_once_and_in_one_order():
    assert methods.parse_methods("ALKDRec, short,Random") == ("Random", "ALKDRec")
    assert methods.parse_methods("table2") == (*methods.PAPER_SELECTIONS, "TR")
    everything = (*methods.parse_methods("all"), *methods.ACTIVE, methods.PROFILES)
    assert sorted(everything) == sorted(methods.METHODS)
    for text in ("", "table3", "short,Best"):
        with pytest.raises(ValueError, match="--methods"):
            methods.parse_methods(text)


def test_tuned_alkdrec_learns_the_same_lists_with_the_same_random_key():
    assert methods.needed_selections(("Tuned ALKDRec",)) == ("ALKDRec",)
    purposes = {
        name: method.train.keywords["purpose"]
        for name, method in methods.METHODS.items()
        if method.train.func is distill_methods.fine_tuned
    }
    assert purposes["Tuned ALKDRec"] == purposes["ALKDRec"]
    assert sorted(purposes.values()) == sorted([21, *range(20, 32), *range(50, 57)]), (
        "a seed gives the same students as before"
    )


def test_the_llm_ranks_only_sessions_that_a_method_needs():
    assert methods.needed_selections(("TR",)) == ("ALKDRec",), "a run always has lists"
    assert methods.needed_selections(("Random", "Hardest")) == ("Random", "Hardest")
    assert methods.needed_selections(("DLLM2Rec", "Shuffled lists")) == ("Random", "ALKDRec")
    assert methods.needed_selections(("Random", "Longer training")) == ("Random",)


LISTS = Rankings(
    session_id=np.array([3, 5, 7, 9], np.int32),
    items=np.array([[1, 2, 3], [4, 5, 0], [6, 7, 8], [9, 1, 2]], np.int32),
    mask=np.array([[True] * 3, [True, True, False], [True] * 3, [True] * 3]),
)
TRAIN = Sessions(
    items=np.ones((4, 1), np.int32),
    mask=np.ones((4, 1), bool),
    target=np.array([2, 8, 9, 3], np.int32),
    session_id=np.array([3, 5, 7, 9], np.int32),
)


def test_correction_puts_the_next_item_first_where_it_was_missing():
    assert np.array_equal(method_lists.correct_rankings(LISTS, TRAIN, 0.0, seed=0).items, LISTS.items)
    all_right = method_lists.correct_rankings(LISTS, TRAIN, 1.0, seed=0)
    assert all_right.items.tolist() == [[1, 2, 3], [8, 4, 5], [9, 6, 7], [3, 9, 1]]
    assert all_right.mask.tolist() == [[True] * 3] * 4
    some = method_lists.correct_rankings(LISTS, TRAIN, 0.67, seed=0)
    assert (some.items != LISTS.items).any(1).sum() == 2
    assert LISTS.items[1].tolist() == [4, 5, 0], "the original lists are unchanged"


def test_every_baseline_gets_the_same_number_of_distinct_trials_with_the_defaults_first():
    grids = {name: method.grid for name, method in methods.METHODS.items() if method.grid}
    assert grids.keys() == {*methods.BASELINES, methods.TUNED, "Learned gate", methods.PROFILES}
    for grid in grids.values():
        tried = tune.sample_options(grid, 8, seed=3)
        assert tried[0] == {name: values[0] for name, values in grid.items()}
        assert len({tuple(options.items()) for options in tried}) == 8
        assert tried == tune.sample_options(grid, 8, seed=3)
    with pytest.raises(ValueError, match="--trials is 0"):
        tune.sample_options(grids["RD"], 0, seed=0)


def test_a_sweep_reuses_the_stages_that_its_setting_does_not_change(tmp_path, monkeypatch):
    runs = []

    def pipeline(settings):
        reused = (settings.out / "teacher").exists()
        RunContext.open(settings)
        (settings.out / "teacher").write_text("trained once")
        runs.append((settings.out.name, settings.budget, reused))
        return run_of("ML", "fpmc", "Student", "ALKDRec")

    monkeypatch.setattr(figures, "run_pipeline", pipeline)
    base = Settings(data="synthetic", backbone="fpmc", out=tmp_path, selection="own")
    results = figures.run_sweep(base, {"50": {"budget": 50}, "100": {"budget": 100}})
    assert runs == [("50", 50, False), ("100", 100, True)]
    other = Settings(data="synthetic", backbone="fpmc", out=tmp_path / "other", selection="own")
    figures.run_sweep(other, {"75": {"budget": 75}, "80": {"budget": 80}}, start=tmp_path / "50")
    assert runs[2:] == [("75", 75, True), ("80", 80, True)], "from an existing run"
    sweep = figures.Sweep("budget", figures.BudgetFigure, fixed={}, plotted=("Student", "ALKDRec"))
    figures.write_figure(tmp_path, "figure", results, sweep)
    assert "0.0150 ± 0.0071" in (tmp_path / "figure.md").read_text()
    assert (tmp_path / "figure.svg").read_text().startswith("<?xml")
