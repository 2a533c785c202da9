"""Students by their bytes: chosen on validation alone, shipped, loaded, measured, and compared."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import TableRecipe
from alkd_jax.evaluation import Protocol, metrics
from experiments import leaderboard
from experiments.pipeline import compact_students, re_rankers
from experiments.reporting import byte_rows, byte_tables
from tests.helpers.extras import import_or_skip

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The table of small sizes on a small dataset, with few options to try."""
    folder = tmp_path_factory.mktemp("board")
    dataset = alkd.data.synthetic(num_items=150, num_sessions=500, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaderboard.registry, "read", lambda source: dataset)
        patch.setattr(compact_students, "BUDGETS_KB", (5, 12))
        patch.setattr(compact_students, "USES", (0.0, 0.5))
        patch.setattr(compact_students, "GRID", {"titles": (0.0, 1.0), "backward": (0.0, 0.5), "recency": (0.5,)})
        args = leaderboard.Leaderboard(
            "synthetic", folder / "a.json", folder / "out", by_bytes=True, ship=folder / "shipped"
        )
        numbers = leaderboard.build_leaderboard(args)
        leaderboard.write(args, numbers)
    return dataset, folder, numbers


def test_the_bytes_are_those_of_the_files_and_sizes_are_kept(board):
    _, folder, numbers = board
    for kilobytes in (5, 12):
        row = numbers["methods"][compact_students.student_name(kilobytes)]
        files = folder / "shipped" / row["folder"]
        on_disk = sum((files / name).stat().st_size for name in ("config.json", "model.safetensors"))
        assert row["bytes"] == on_disk <= 1000 * kilobytes
        assert row["resident_bytes"] <= 2 * row["bytes"]
        assert row["us_per_session"] > 0
    assert numbers["methods"]["Markov"]["bytes"] == numbers["methods"][compact_students.STORED]["bytes"]
    assert numbers["methods"]["Markov"]["resident_bytes"] > 0


def test_shipped_students_give_the_ranks_of_the_table(board):
    dataset, folder, numbers = board
    test = dataset.test
    for name in (*map(compact_students.student_name, (5, 12)), compact_students.STORED):
        row = numbers["methods"][name]
        student = alkd.Recommender.load(folder / "shipped" / row["folder"])
        items = np.asarray(test.items)
        scores, ids = student.top_k(items, dataset.num_items, exclude=items)
        target = ids == np.asarray(test.target)[:, None]
        # A target in its session's history is in no list; its rank is not compared.
        listed = target.any(1)
        place = target.argmax(1)
        own = np.take_along_axis(scores, place[:, None], 1)
        better, equal = (scores > own).sum(1), (scores == own).sum(1) - 1
        rank = 1 + better + (equal + 1) // 2
        ours = metrics.from_ranks(rank[listed])["recall@10"] * listed.mean()
        assert ours <= row["recall@10"]["mean"] + 1e-9
        assert row["recall@10"]["mean"] - ours <= 1 - listed.mean() + 1e-9


def test_rows_are_split_by_what_training_has_seen_and_compared(board):
    dataset, folder, numbers = board
    for row in numbers["methods"].values():
        total = sum(row[part].get("recall@10", 0) * row[part]["targets"] for part in ("seen", "unseen"))
        assert total / len(dataset.test) == pytest.approx(row["recall@10"]["mean"])
    compared = {(test["method"], test["against"]) for test in numbers["tests"]}
    assert len(compared) == 2 * len(byte_rows.REFERENCES)
    assert json.loads((folder / "a.json").read_text()) == json.loads(json.dumps(numbers))
    assert "bytes in memory" in (folder / "out" / dataset.name / "leaderboard.md").read_text()


def test_larger_sizes_are_not_worse_on_validation(board):
    _, _, numbers = board
    small, large = (numbers["methods"][compact_students.student_name(size)]["chosen"]["sum"] for size in (5, 12))
    assert large >= small


@pytest.mark.parametrize(("kind", "targets"), [("linear", "last"), ("trees", "all")])
def test_a_re_ranker_teaches_students_where_validation_is_better_with_its_labels(tmp_path, monkeypatch, kind, targets):
    if kind == "trees":
        import_or_skip("lightgbm")
        monkeypatch.setattr(re_rankers, "NUM_TREES", (3,))
        monkeypatch.setattr(re_rankers, "NUM_LEAVES", (3,))
    dataset = alkd.data.synthetic(num_items=60, num_sessions=300, seed=1)
    monkeypatch.setattr(leaderboard.registry, "read", lambda source: dataset)
    monkeypatch.setattr(compact_students, "BUDGETS_KB", (12,))
    monkeypatch.setattr(compact_students, "GRID", {"backward": (0.0,), "recency": (0.3, 0.5)})
    monkeypatch.setattr(compact_students, "TITLE_PLACES", (3,))
    args = leaderboard.Leaderboard("synthetic", out=tmp_path, by_bytes=True, re_ranker=kind, targets=targets)
    numbers = leaderboard.build_leaderboard(args)
    student, untaught = compact_students.student_name(12), compact_students.untaught_name(12)
    without = leaderboard.build_leaderboard(dataclasses.replace(args, out=tmp_path / "without", re_ranker=None))
    assert numbers["methods"][untaught]["chosen"] == without["methods"][student]["chosen"]
    assert numbers["methods"][untaught]["chosen"]["options"]["labels"] == 0
    assert numbers["methods"][student]["chosen"]["options"]["labels"] > 0
    assert numbers["methods"][student]["chosen"]["sum"] > numbers["methods"][untaught]["chosen"]["sum"]
    assert numbers["methods"][student]["bytes"] <= 12_000
    compared = {(test["method"], test["against"]) for test in numbers["tests"]}
    assert {(student, untaught), (student, compact_students.STORED)} <= compared
    assert "labels" in byte_tables.table(numbers)
    assert byte_tables.comparisons(numbers).splitlines()[0].count("|") == 6
    assert byte_tables.comparisons(without).splitlines()[0].count("|") == 5


def test_labels_that_do_not_help_on_validation_are_left_out(tmp_path, monkeypatch):
    dataset = alkd.data.synthetic(num_items=60, num_sessions=300, seed=1)
    monkeypatch.setattr(leaderboard.registry, "read", lambda source: dataset)
    monkeypatch.setattr(compact_students, "BUDGETS_KB", (12,))
    monkeypatch.setattr(re_rankers, "item_labels", lambda *_: csr_array((61, 61)))
    of_size = compact_students.Search.sparse_table_of_size

    def worse(self, start, variants, kilobytes, grid):
        student, recipe, quality = of_size(self, start, variants, kilobytes, grid)
        return student, recipe, {**quality, "sum": 0.0} if grid else quality

    monkeypatch.setattr(compact_students.Search, "sparse_table_of_size", worse)
    args = leaderboard.Leaderboard("synthetic", out=tmp_path, by_bytes=True, re_ranker="linear")
    numbers = leaderboard.build_leaderboard(args)
    assert numbers["methods"][compact_students.student_name(12)]["chosen"]["options"]["labels"] == 0
    assert compact_students.untaught_name(12) not in numbers["methods"]
    assert "Best student" in byte_tables.table(numbers)
    assert byte_tables.comparisons(numbers).splitlines()[0].count("|") == 5


def test_the_recency_of_a_student_is_the_best_of_the_grid():
    dataset = alkd.data.synthetic(num_items=60, num_sessions=300, seed=1)
    search = compact_students.Search(dataset, Protocol(), None)
    recipe = TableRecipe(recency=0.5)
    table = item_rules.table_student(dataset, recipe, max_bytes=12_000, rules=search.rules(recipe))
    qualities = {}
    for recency in compact_students.GRID["recency"]:
        made = dataclasses.replace(recipe, recency=recency)
        other = item_rules.table_student(dataset, made, max_bytes=12_000, rules=search.rules(made))
        qualities[recency] = search.quality(baselines.packed_scorer(other))["sum"]
    worst = {"sum": -1.0}
    student, chosen, quality = search.best_recency((table, recipe, search.quality(baselines.packed_scorer(table))))
    assert quality["sum"] == max(qualities.values()) == qualities[chosen.recency]
    assert student.options["recency"] == chosen.recency
    assert search.best_recency((table, recipe, worst))[2]["sum"] >= max(qualities[r] for r in qualities if r != 0.5)


def test_options_that_go_not_together_are_refused(tmp_path):
    both = leaderboard.Leaderboard("synthetic", out=tmp_path, by_bytes=True, training_free=True)
    with pytest.raises(ValueError, match="go not together"):
        leaderboard.build_leaderboard(both)
    repeats = leaderboard.Leaderboard("synthetic", out=tmp_path, by_bytes=True, re_ranker="linear", seen="keep")
    for args in (repeats, dataclasses.replace(repeats, seen="exclude", by_bytes=False, training_free=True)):
        with pytest.raises(ValueError, match="--re-ranker goes with --seen exclude"):
            leaderboard.build_leaderboard(args)
    missing = leaderboard.Leaderboard("synthetic", out=tmp_path, by_bytes=True, title_vectors=tmp_path / "none.npz")
    with pytest.raises(ValueError, match="expected a file"):
        leaderboard.build_leaderboard(missing)


def test_titles_that_are_ids_are_no_titles():
    dataset = alkd.data.synthetic(num_items=150, num_sessions=500, seed=0)
    untitled = dataclasses.replace(dataset, titles=dataset.item_ids)
    assert compact_students.has_titles(dataset)
    assert compact_students.title_similarity(untitled, None) is None
