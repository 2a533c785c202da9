"""The strongest student: its recipe, the rows of its table, and the files that `experiments.best` writes."""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines, evaluation
from alkd_jax.distillation import item_rules
from experiments import best as command
from experiments import leaderboard
from experiments.pipeline import best_lists, best_rows, best_sessions
from experiments.reporting import leaderboard_table, published


@pytest.fixture(scope="module")
def dataset() -> alkd.Dataset:
    return alkd.data.synthetic(num_items=300, num_sessions=900, seed=0)


def test_the_student_beats_popularity_and_is_close_to_the_rules_that_train_it(dataset):
    model, fitted = item_rules.train(
        jax.random.key(0), dataset, preset=item_rules.Recipe(max_steps=200), batch_size=300
    )
    student = evaluation.evaluate(model, jax.tree.map(lambda leaf: leaf[0], fitted.params), dataset.validation)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    counted = {
        name: np.mean(baselines.rank_targets(functools.partial(score, counts), counts, dataset.validation) <= 10)
        for name, score in (("popularity", baselines.popularity), ("rules", baselines.sequential_rules))
    }
    assert student.metrics["recall@10"] > 2 * counted["popularity"]
    assert student.metrics["recall@10"] > 0.7 * counted["rules"]


def test_rules_come_from_the_sources_that_the_recipe_weights(dataset):
    plain = item_rules.Recipe(decay=0.9, backward=0.0)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    followed = item_rules.cooccurrence_rules(counts)
    assert abs(item_rules.build_rules(dataset, plain) - followed).max() == 0
    titled = item_rules.build_rules(dataset, dataclasses.replace(plain, titles=0.5))
    assert titled.sum() > followed.sum()
    lists = alkd.Rankings(
        session_id=np.asarray(dataset.train.session_id)[:3],
        items=np.full((3, 1), dataset.num_items, np.int32),
        mask=np.ones((3, 1), bool),
    )
    listed = item_rules.build_rules(dataset, dataclasses.replace(plain, lists=2.0), lists)
    assert (listed - followed).sum() > 0
    np.testing.assert_array_equal(np.unique((listed - followed).tocoo().coords[1]), [dataset.num_items])
    with pytest.raises(ValueError, match="expected lists"):
        item_rules.build_rules(dataset, dataclasses.replace(plain, lists=2.0))


def test_recipes_depend_on_the_dataset_and_unknown_presets_are_refused():
    assert item_rules.recipe_of("best", "ML") == item_rules.Recipe(decay=0.8, backward=0.5, titles=0.05)
    assert item_rules.recipe_of("best", "own") == item_rules.Recipe()
    assert item_rules.recipe_of(item_rules.Recipe(power=3.0), "ML").power == 3.0
    with pytest.raises(ValueError, match="preset is 'worst'"):
        item_rules.recipe_of("worst", "ML")


@pytest.mark.parametrize(
    "loss", ["full", *(pytest.param(n, marks=pytest.mark.slow) for n in ("softmax", "bpr", "sampled", "rules"))]
)
def test_a_backbone_trained_on_every_prefix_beats_chance(dataset, loss):
    options = dict(max_steps=100, steps_per_validation=50, learning_rate=0.03)
    _, fitted = best_sessions.train_on_sessions(jax.random.key(0), dataset, backbone="fpmc", loss=loss, **options)
    assert (fitted.best_metric > 2 * 25 / dataset.num_items).all()


@pytest.mark.slow
def test_stored_rows_are_not_trained_again_and_the_recipe_is_exported(tmp_path, capsys):
    args = command.Best("synthetic", tmp_path / "best", seeds=2, rows=("student",), max_steps=20)
    numbers = command.train_and_collect(args)
    row = numbers["rows"]["recipe"]
    assert numbers["dataset"] == "synthetic"
    assert len(row["test"]["recall@10"]["values"]) == len(row["validation"]["ndcg@10"]["values"]) == 2
    assert row["parameters"] == 2 * 2001 * 11 + 400
    assert json.loads(json.dumps(numbers)) == numbers
    assert "recipe" in command.as_markdown(numbers)
    capsys.readouterr()
    again = command.train_and_collect(args)
    assert "reused from an earlier run" in capsys.readouterr().out
    assert again == numbers

    every_target = dataclasses.replace(args, out=tmp_path / "all", seeds=1, seen="keep", targets="all")
    other = command.train_and_collect(every_target)
    assert other["protocol"]["targets"] == "all"
    assert other["protocol"]["name"] in command.as_markdown(other)
    with np.load(tmp_path / "all" / "recipe.npz") as stored:
        held_out = alkd.data.synthetic(seed=0).test_sequences
        assert stored["test"].shape == (1, len(held_out.sequences.items) - len(held_out))

    command.export_student(args, tmp_path / "shipped")
    assert "serve it with" in capsys.readouterr().out
    dataset = alkd.data.synthetic(seed=0)
    found = alkd.Recommender.load(tmp_path / "shipped").recommend(list(dataset.item_ids[1:4]), k=5)
    assert len(found) == 5
    with np.load(tmp_path / "best" / "recipe.npz") as stored:
        quality = [alkd.evaluation.metrics.from_ranks(ranks)["ndcg@10"] for ranks in stored["validation"]]
    model = item_rules.create_student(item_rules.recipe_of("best", "synthetic"), num_items=dataset.num_items)
    params = alkd.training.checkpoints.restore_params(tmp_path / "best" / "recipe.params", model, seeds=2)
    chosen = jax.tree.map(lambda leaf: leaf[int(np.argmax(quality))], params)
    items = jax.numpy.array([[1, 2, 3]], np.int32)
    table = model.apply(chosen, method="item_embeddings")
    _, listed = alkd.scoring.top_k(model.apply(chosen, items, items > 0), table, 5, exclude=items)
    assert [raw for raw, _, _ in found] == [dataset.item_ids[item] for item in listed[0].tolist()]


def test_all_rows_have_different_names_and_identities(dataset):
    recipe = item_rules.recipe_of("best", "ML")
    rows_made = command.make_rows(("ablation", "widths", "sessions"), "synthetic", dataset, recipe)
    assert len({row.slug for row in rows_made}) == len(rows_made)
    assert len({json.dumps(row.identity) for row in rows_made}) == len(rows_made)
    # The recipe was chosen on validation: only it, its widths and other trainings are ever shown the test.
    assert not [row.name for row in rows_made if row.test and row.identity.get("dim") == 10 and row.name != "recipe"]


@pytest.mark.parametrize(
    ("rows", "message"), [(("wrong",), "expected some of student"), (("lists",), "expected released")]
)
def test_invalid_row_groups_are_refused(dataset, rows, message):
    with pytest.raises(ValueError, match=message):
        command.make_rows(rows, "synthetic", dataset, item_rules.Recipe())


@pytest.mark.slow
def test_list_rows_have_lists_for_the_same_500_sessions(release, released_dataset):
    dataset = released_dataset("ML")
    rows_made = {row.name: row for row in best_lists.list_rows(f"released:{release}:ML", dataset, item_rules.Recipe())}
    llm, shuffled, counted = (
        rows_made[f"with 500 {kind}"].train.keywords["rankings"]
        for kind in ("LLM lists", "shuffled LLM lists", "co-occurrence lists")
    )
    for other in (shuffled, counted):
        assert set(other.session_id.tolist()) == set(llm.session_id.tolist())
    assert len(llm) == 500
    assert (shuffled.items[:, 0] != llm.items[:, 0]).mean() > 0.9
    assert sorted(map(tuple, shuffled.items.tolist())) == sorted(map(tuple, llm.items.tolist()))
    assert rows_made["with 500 LLM lists"].train.keywords["preset"].lists > 0


@pytest.mark.slow
def test_the_leaderboard_has_all_methods(tmp_path):
    file = tmp_path / "board.json"
    args = leaderboard.Leaderboard("synthetic", file, tmp_path / "runs", seeds=2, max_steps=20)
    numbers = leaderboard.build_leaderboard(args)
    assert {command.NAME, "Popularity", "Sequential rules", "Teacher, FPMC", "Student, FPMC", "ALKDRec, FPMC"} <= set(
        numbers["methods"]
    )
    ours = numbers["methods"][command.NAME]
    assert len(ours["recall@10"]["values"]) == 2
    assert 2 * ours["parameters"] < ours["bytes"] < 2 * ours["parameters"] + 4000
    assert ours["seen"]["targets"] + ours["unseen"]["targets"] == len(alkd.data.synthetic(seed=0).test)
    assert ours["us_per_session"] > 0
    assert numbers["methods"]["ALKDRec, FPMC"]["lists"] == "simulated LLM, no language model"
    assert {row.get("llm_usd", 0) for row in numbers["methods"].values()} == {0}
    against = {test["against"] for test in numbers["tests"]}
    assert against == set(numbers["methods"]) - {command.NAME}
    leaderboard.write(args, numbers)
    assert json.loads(file.read_text()) == json.loads(json.dumps(numbers))
    text = (tmp_path / "runs" / "synthetic" / "leaderboard.md").read_text()
    assert f"**{command.NAME}**" in text
    assert text.index(command.NAME) < text.index("| Popularity")
    args = dataclasses.replace(args, lineup="short")
    numbers = leaderboard.build_leaderboard(args)
    assert {command.NAME, "Student, FPMC", "V-SKNN", "SLIST"} <= set(numbers["methods"])
    assert "Markov" not in numbers["methods"]
    assert {"V-SKNN", "SLIST"} <= {test["against"] for test in numbers["tests"]}
    text = leaderboard_table.table(numbers, own=leaderboard.NAME)
    assert "| V-SKNN " in text
    assert "by recall@10 on 500 validation sessions" in text


def test_published_numbers_are_named_as_published():
    found = published.published_by_row("ML")
    assert found["ALKDRec, FPMC (published)"]["recall@10"] > found["Student, FPMC (published)"]["recall@10"]


@pytest.mark.slow
def test_max_pooling_ranks_by_the_maximum_over_items(dataset):
    recipe = item_rules.Recipe(max_steps=20)
    model, fitted = item_rules.train(jax.random.key(0), dataset, preset=recipe)
    sharp, sharpened = best_rows.max_pooling(jax.random.key(0), dataset, recipe=recipe)
    plain, scaled = (jax.tree.map(lambda leaf: leaf[0], out.params) for out in (fitted, sharpened))
    items, mask = jax.numpy.asarray(dataset.validation.items), jax.numpy.asarray(dataset.validation.mask)
    vectors, table = model.apply(plain, items, mask), model.apply(plain, method="item_embeddings")
    each = np.asarray(vectors @ table.T)
    found = np.asarray(
        alkd.scoring.scores(sharp.apply(scaled, items, mask), sharp.apply(scaled, method="item_embeddings"))
    )
    maximum = each.max(1)
    np.testing.assert_allclose(found[:, 1:] / best_rows.SHARPNESS, maximum[:, 1:], atol=np.log(10) / 16 + 1e-3)
    pooled = np.log(np.exp(each).sum(1))
    assert np.abs(pooled - maximum)[:, 1:].max() > 2 * np.log(10) / 16


def test_lists_belong_to_the_last_position_of_their_sessions(dataset):
    lists = alkd.Rankings(
        session_id=np.asarray(dataset.train.session_id)[[5, 2]],
        items=np.array([[7, 8], [9, 0]], np.int32),
        mask=np.array([[True, True], [True, False]]),
    )
    items, gain = best_sessions.last_position_lists(dataset, lists)
    examples = alkd.training.examples.prefix_examples(dataset.train_sequences)
    session, position = np.asarray(examples.session), np.asarray(examples.position)
    listed = np.flatnonzero(items.any(1))
    assert session[listed].tolist() == [2, 5]
    assert (position[listed] == np.asarray(dataset.train_sequences.offsets)[[3, 6]] - 1).all()
    assert items[listed].tolist() == [[9, 0], [7, 8]]
    assert gain[listed].tolist() == [[3, 0], [3, 3]]
    assert not np.delete(gain, listed, axis=0).any()


def test_random_walks_follow_the_training_sessions(dataset):
    sequences, more = dataset.train_sequences, best_sessions.with_random_walks(dataset)
    assert (np.asarray(more.items)[: len(sequences.items)] == sequences.items).all()
    assert 1.5 * len(sequences) < len(more) <= 2 * len(sequences)
    assert more.offsets[-1] == len(more.items)
    counts = baselines.count(sequences, dataset.num_items)
    walks = np.split(more.items[len(sequences.items) :], more.offsets[len(sequences) + 1 : -1] - len(sequences.items))
    assert all(counts.followers[a, b] > 0 for walk in walks[:100] for a, b in itertools.pairwise(walk))


@pytest.mark.slow
def test_lists_are_selected_and_weighted_by_counts(release, released_dataset):
    dataset = released_dataset("ML")
    recorded, _ = alkd.data.load_released_rankings(release, "ML", dataset=dataset)
    rare = best_lists.lists_of_rare_items(dataset, recorded, 500)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    row = {session: n for n, session in enumerate(dataset.train.session_id.tolist())}

    def mean_log_count(lists):
        rows = [row[session] for session in lists.session_id.tolist()]
        items, mask = dataset.train.items[rows], dataset.train.mask[rows]
        return np.log1p(np.asarray(counts.followers.sum(1)).ravel())[items][mask].mean()

    assert len(rare) == 500
    assert mean_log_count(rare) < mean_log_count(recorded) - 1
    trust = best_lists.agreement(dataset, rare)
    assert trust.mean() == pytest.approx(1)
    assert trust.min() >= 0
    shuffled = alkd.Rankings(rare.session_id, np.roll(rare.items, 7, axis=0), np.roll(rare.mask, 7, axis=0))
    # Trust is relative; what is shared with counts, before it is rows_made 1 on average, is far rarer in others' lists.
    assert (best_lists.agreement(dataset, shuffled) == 0).mean() > (trust == 0).mean()
