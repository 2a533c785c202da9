"""The stored results of a run: its numbers and nothing else, from which the same tables are written again."""

import json
import sys

import numpy as np
import pytest

from alkd_jax.baselines import Places
from alkd_jax.evaluation import Protocol, metrics
from experiments import record
from experiments.pipeline.protocols import stored_protocol
from experiments.reporting import published, recount
from experiments.reporting.results import mean_and_std
from tests.helpers import paths


def against_student(method, difference, *, sessions, seeds):
    return {
        "method": method,
        "against": "Student",
        "metric": "recall@10",
        "difference": difference,
        "interval": [difference - 0.001, difference + 0.0012345678],
        "p_randomization": 0.001,
        "p_randomization_holm": sessions,
        "p_seeds_holm": seeds,
        "effect": 0.3,
    }


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "Games-attmix-clean"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = ("Student", "FTD", "ALKDRec", "True labels", "Markov")
    metrics = (*record.METRICS, "mrr")
    numbers = {
        "dataset": "Games",
        "backbone": "attmix",
        "mode": "clean",
        "seeds": 3,
        "budget": 500,
        "selection": "released",
        "protocol": stored_protocol(Protocol()),
        "methods": {
            name: {m: mean_and_std(list(rng.random(1 if name == "Markov" else 3))) for m in metrics} for name in names
        },
        "tuned": {
            "FTD": {
                "chosen": {"weight": 1e-5},
                "recall@10": 0.02,
                "recall@10, defaults": 0.01,
                "trials": 4,
                "seeds": 1,
            }
        },
        "tests": [
            against_student("ALKDRec", 0.01234, sessions=0.01, seeds=0.2),
            against_student("FTD", -0.002, sessions=0.6, seeds=None),
            against_student("FTD", 0.5, sessions=0.0, seeds=0.0) | {"against": "Random"},
        ],
    }
    (folder / "metrics.json").write_text(json.dumps(numbers))
    (folder / "stages.json").write_text(json.dumps({"teacher": {"digest": "x", "seconds": 90.0, "outputs": []}}))
    return folder


def rows(markdown):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    return {cells[0]: dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}


def test_the_table_of_a_stored_run_holds_its_numbers(run):
    numbers = json.loads((run / "metrics.json").read_text())
    stored = json.loads(record.as_text(record.condensed_results(run)))
    table = rows(record.table(stored))
    assert list(table) == ["Student", "FTD", "ALKDRec", "*True labels*", "Markov"]
    student = numbers["methods"]["Student"]["ndcg@5"]
    assert table["Student"]["ndcg@5"] == f"{student['mean']:.4f} ± {student['std']:.4f}"
    assert "±" not in table["Markov"]["recall@10"]
    assert table["ALKDRec"]["recall@10 − Student"] == "+0.0123 *"
    assert table["FTD"]["recall@10 − Student"] == "-0.0020"


def test_the_summary_has_a_line_for_each_run_in_clean_mode(run):
    stored = record.condensed_results(run)
    table = rows(record.summary([stored, stored | {"mode": "released"}]))
    assert list(table) == ["Games, AttMix"]
    line = table["Games, AttMix"]
    student = json.loads((run / "metrics.json").read_text())["methods"]["Student"]["recall@10"]
    assert line["Student"] == f"{student['mean']:.4f} ± {student['std']:.4f}"
    assert (line["Random"], line["ALKDRec − Random"]) == ("", "")
    assert line["ALKDRec − Student"] == "+0.0123 *"


def test_published_numbers_are_shown_with_their_marks(run):
    table = rows(record.table(record.condensed_results(run)))
    assert table["FTD"]["published recall@10"].endswith("‡"), "fits the other dataset's test size"
    assert table["Student"]["published ndcg@10"].endswith("‡"), "smaller than its ndcg@5"
    recall = published.published_by_method("Games", "AttMix")["ALKDRec"]["recall@10"]
    assert table["ALKDRec"]["published recall@10"] == f"{recall:.5f}"
    assert table["*True labels*"]["published recall@10"] == ""


def test_the_command_writes_a_file_for_each_run_and_the_page(run, tmp_path, monkeypatch):
    out = tmp_path / "stored"
    monkeypatch.setattr(sys, "argv", ["record", "--runs", str(run), "--out", str(out)])
    record.main()
    text = (out / "README.md").read_text()
    assert "## Games, AttMix, clean mode: 3 seeds, 500 sessions ranked by the LLM, released selection" in text
    assert "FTD: weight 1e-05; validation recall@10 0.0200, with the defaults 0.0100 (4 trials, seeds: 1)" in text
    assert len((out / "Games-attmix-clean.json").read_text().splitlines()) < 20
    assert text == record.page(out), "the page needs nothing of the run's folder"


def test_a_figure_is_stored_with_its_table(tmp_path, monkeypatch):
    figure = tmp_path / "fig4_budget-ML"
    figure.mkdir()
    (figure / "fig4_budget.svg").write_text("<svg/>")
    with pytest.raises(ValueError, match=r"0 files fig\*\.md"):
        record.store_figure(figure, tmp_path / "stored")
    (figure / "fig4_budget.md").write_text("| asked | recall |\n")
    monkeypatch.setattr(sys, "argv", ["record", "--figures", str(figure), "--out", str(tmp_path / "out")])
    record.main()
    text = (tmp_path / "out" / "README.md").read_text()
    assert "![fig4_budget-ML](figures/fig4_budget-ML.svg)\n\n| asked | recall |\n" in text
    assert (tmp_path / "out" / "figures" / "fig4_budget-ML.svg").read_text() == "<svg/>"


def test_an_unfinished_run_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no metrics\.json"):
        record.condensed_results(tmp_path)


def stored_before_the_rule_for_ties(places):
    """A stored run without a protocol, whose training-free row has halves rounded down."""
    values = metrics.from_ranks(places.ranks(ties="published"), (5, 10))
    test = against_student("Markov", 0.1, sessions=0.01, seeds=None)
    return {
        "mode": "clean",
        "methods": {
            "Student": {"recall@10": [0.25, 0.5], "ndcg@10": [0.1, 0.3]},
            "Markov": {metric: [round(value, 6)] for metric, value in values.items()},
        },
        "tests": [test, test | {"metric": "ndcg@10"}, test | {"method": "Teacher"}],
    }


def test_training_free_rows_are_ranked_again_and_other_rows_stay():
    # Ranks 10.5, 3.5, 1 and 20: by today's rule the first is no hit at 10.
    places = Places(better=np.array([9, 2, 0, 19], np.int32), equal=np.array([1, 1, 0, 0], np.int32))
    stored = stored_before_the_rule_for_ties(places)
    stored["methods"]["Markov"] |= {"coverage@10": [0.4], "stratified_recall@10": [0.7]}
    found = recount.recount_results(stored, {"Markov": places})
    assert found["methods"]["Markov"]["coverage@10"] == [0.4], "lists do not depend on the rule for ties"
    assert "stratified_recall@10" not in found["methods"]["Markov"], "it does, and the targets are not stored"
    assert found["methods"]["Student"] == stored["methods"]["Student"]
    assert found["methods"]["Markov"]["recall@10"] == [0.5], "it was 0.75"
    assert found["methods"]["Markov"]["tied"] == [2]
    assert found["protocol"] == stored_protocol(Protocol())
    recall, ndcg, teacher = found["tests"]
    assert (recall["difference"], recall["p_randomization_holm"], recall["interval"]) == (0.125, None, [None, None])
    assert ndcg["p_randomization_holm"] is None
    assert teacher == stored["tests"][2], "a test between other methods stays"
    assert recount.recount_results(found, {"Markov": places})["methods"] == found["methods"]
    assert record.comparisons.format_difference(recall) == "+0.1250 § "


def test_tests_stay_where_the_rule_for_ties_changes_no_value():
    places = Places(better=np.array([4, 29, 0], np.int32), equal=np.array([0, 1, 0], np.int32))
    stored = stored_before_the_rule_for_ties(places)
    assert recount.recount_results(stored, {"Markov": places})["tests"] == stored["tests"]


def test_results_of_other_data_are_refused():
    places = Places(better=np.array([4, 0], np.int32), equal=np.array([0, 0], np.int32))
    stored = stored_before_the_rule_for_ties(places)
    other = Places(better=np.array([4, 40], np.int32), equal=np.array([0, 0], np.int32))
    with pytest.raises(ValueError, match=r"Markov has .* on these data; expected the stored"):
        recount.recount_results(stored, {"Markov": other})


def test_a_leaderboard_is_sorted_again():
    page = (
        "# ML\n\n| method | recall@10 | ndcg@10 | bytes |\n|--|--|--|--|\n| Markov | 0.7500 | 0.1 | |\n"
        "| **Best student** | 0.6000 ± 0.1000 | 0.1 | 12 |\n\nnote\n"
    )
    places = Places(better=np.array([9, 0], np.int32), equal=np.array([1, 0], np.int32))
    text = recount.recount_leaderboard(page, {"Markov": places})
    lines = rows("\n".join(line for line in text.splitlines() if line.startswith("|")))
    assert list(lines) == ["**Best student**", "Markov"]
    assert lines["Markov"] == {
        "method": "Markov",
        "recall@10": "0.5000",
        "ndcg@10": "0.5000",
        "tied targets": "1",
        "bytes": "",
    }
    assert lines["**Best student**"]["tied targets"] == ""
    assert "Protocol: last target" in text
    assert recount.recount_leaderboard(text, {"Markov": places}) == text


def test_the_tables_of_the_documents_agree_with_the_stored_results():
    stored = record.read_results(paths.ROOT / "experiments" / "results")
    assert stored, "the project stores its results"
    results = paths.ROOT / "experiments" / "results"
    assert (results / "README.md").read_text() == record.page(results)
    readme, page = (paths.ROOT / "README.md").read_text(), (paths.ROOT / "docs" / "results.md").read_text()
    assert record.summary(stored) in readme
    assert record.summary(stored) in page
    shown = {(run["dataset"], run["backbone"]) for run in stored if record.table(run) in page}
    assert {("ML", "fpmc"), ("Games", "fpmc")} <= shown
