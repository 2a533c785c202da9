"""The strongest student's recipe and its experiments: what is read, what is written, what is kept."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines, evaluation
from alkd_jax.distillation.item_rules import recipe as best
from alkd_jax.distillation.item_rules import rules
from experiments import best as command
from experiments import leaderboard
from experiments.pipeline import best_lists, best_rows, best_sessions
from tests.helpers import paths

RELEASE = paths.SHARED / "alkdrec-release"


@pytest.fixture(scope="module")
def world() -> alkd.Dataset:
    return alkd.data.synthetic(num_items=300, num_sessions=900, seed=0)


def test_the_student_beats_the_count_it_was_taught_by_far_less_than_it_beats_popularity(world):
    model, fitted = best.train(jax.random.key(0), world, preset=best.Recipe(max_steps=200), batch_size=300)
    student = evaluation.evaluate(model, jax.tree.map(lambda leaf: leaf[0], fitted.params), world.validation)
    counts = baselines.count(world.train_sequences, world.num_items)
    counted = {
        name: np.mean(baselines.rank_targets(method, counts, world.validation) <= 10)
        for name, method in (("popularity", baselines.popularity), ("rules", baselines.sequential_rules))
    }
    assert student.metrics["recall@10"] > 2 * counted["popularity"]
    assert student.metrics["recall@10"] > 0.7 * counted["rules"]


def test_rules_hold_what_the_recipe_names(world):
    plain = best.Recipe(decay=0.9, backward=0.0)
    counts = baselines.count(world.train_sequences, world.num_items)
    followed = rules.cooccurrence_rules(counts)
    assert abs(best.rules_for(world, plain) - followed).max() == 0
    titled = best.rules_for(world, dataclasses.replace(plain, titles=0.5))
    assert titled.sum() > followed.sum()
    lists = alkd.Rankings(
        session_id=np.asarray(world.train.session_id)[:3],
        items=np.full((3, 1), world.num_items, np.int32),
        mask=np.ones((3, 1), bool),
    )
    listed = best.rules_for(world, dataclasses.replace(plain, lists=2.0), lists)
    assert (listed - followed).sum() > 0
    np.testing.assert_array_equal(np.unique((listed - followed).tocoo().coords[1]), [world.num_items])
    with pytest.raises(ValueError, match="expected rankings"):
        best.rules_for(world, dataclasses.replace(plain, lists=2.0))


def test_presets_are_by_data_set_and_others_are_refused():
    assert best.recipe("best", "ML") == best.PRESETS["best"]["ML"]
    assert best.recipe("best", "own") == best.Recipe()
    assert best.recipe(best.Recipe(power=3.0), "ML").power == 3.0
    with pytest.raises(ValueError, match="preset is 'worst'"):
        best.recipe("worst", "ML")


@pytest.mark.parametrize(
    "loss", ["softmax", "full", *(pytest.param(n, marks=pytest.mark.slow) for n in ("bpr", "sampled", "taught"))]
)
def test_a_backbone_learns_every_prefix(world, loss):
    options = dict(max_steps=100, steps_per_validation=50, learning_rate=0.03)
    _, fitted = best_sessions.by_sessions(jax.random.key(0), world, backbone="fpmc", loss=loss, **options)
    assert (fitted.best_metric > 2 * 25 / world.num_items).all()


def test_rows_are_kept_and_the_recipe_alone_is_tested(tmp_path, capsys):
    asked = command.Best("synthetic", tmp_path / "best", seeds=2, rows=("student",), max_steps=20)
    numbers = command.account(asked)
    row = numbers["rows"]["recipe"]
    assert numbers["dataset"] == "synthetic"
    assert len(row["test"]["recall@10"]["values"]) == len(row["validation"]["ndcg@10"]["values"]) == 2
    assert row["parameters"] == 2 * 2001 * 11 + 400
    assert json.loads(json.dumps(numbers)) == numbers
    assert "recipe" in command.as_markdown(numbers)
    capsys.readouterr()
    again = command.account(asked)
    assert "kept from an earlier run" in capsys.readouterr().out
    assert again == numbers

    command.ship(asked, tmp_path / "shipped")
    assert "serve it with" in capsys.readouterr().out
    dataset = alkd.data.synthetic(seed=0)
    found = alkd.Recommender.load(tmp_path / "shipped").recommend(list(dataset.item_ids[1:4]), k=5)
    assert len(found) == 5
    with np.load(tmp_path / "best" / "recipe.npz") as kept:
        quality = [alkd.evaluation.metrics.from_ranks(ranks)["ndcg@10"] for ranks in kept["validation"]]
    model = best.student(best.recipe("best", "synthetic"), num_items=dataset.num_items)
    params = alkd.training.checkpoints.restore_params(tmp_path / "best" / "recipe.params", model, seeds=2)
    chosen = jax.tree.map(lambda leaf: leaf[int(np.argmax(quality))], params)
    items = jax.numpy.array([[1, 2, 3]], np.int32)
    table = model.apply(chosen, method="item_embeddings")
    _, listed = alkd.scoring.top_k(model.apply(chosen, items, items > 0), table, 5, exclude=items)
    assert [raw for raw, _, _ in found] == [dataset.item_ids[item] for item in listed[0].tolist()]


def test_every_row_differs_from_the_recipe_in_what_decides_it(world):
    recipe = best.recipe("best", "ML")
    made = command.rows(("ablation", "widths", "sessions"), "synthetic", world, recipe)
    assert len({row.slug for row in made}) == len(made)
    assert len({json.dumps(row.identity) for row in made}) == len(made)
    # The recipe was chosen on validation: only it, its widths and other trainings are ever shown the test.
    assert not [row.name for row in made if row.test and row.identity.get("dim") == 10 and row.name != "recipe"]


@pytest.mark.parametrize(
    ("rows", "told"), [(("wrong",), "expected some of student"), (("lists",), "needs --data released")]
)
def test_wrong_rows_are_refused(world, rows, told):
    with pytest.raises(ValueError, match=told):
        command.rows(rows, "synthetic", world, best.Recipe())


@pytest.mark.skipif(not RELEASE.exists(), reason="the authors' released files are not beside the project")
def test_list_rows_ask_about_the_same_500_sessions():
    dataset = alkd.data.load_released(RELEASE, "ML")
    made = {row.name: row for row in best_lists.rows(f"released:{RELEASE}:ML", dataset, best.Recipe())}
    llm, shuffled, counted = (
        made[f"with 500 {kind}"].train.keywords["rankings"]
        for kind in ("LLM lists", "shuffled LLM lists", "co-occurrence lists")
    )
    for other in (shuffled, counted):
        assert set(other.session_id.tolist()) == set(llm.session_id.tolist())
    assert len(llm) == 500
    assert (shuffled.items[:, 0] != llm.items[:, 0]).mean() > 0.9
    assert sorted(map(tuple, shuffled.items.tolist())) == sorted(map(tuple, llm.items.tolist()))
    assert made["with 500 LLM lists"].train.keywords["preset"].lists > 0


@pytest.mark.slow
def test_the_leaderboard_holds_everyone(tmp_path):
    file = tmp_path / "board.json"
    asked = leaderboard.Leaderboard("synthetic", file, tmp_path / "runs", seeds=2, max_steps=20)
    numbers = leaderboard.board(asked)
    assert {command.NAME, "Popularity", "Sequential rules", "Teacher, FPMC", "Student, FPMC", "ALKDRec, FPMC"} <= set(
        numbers["methods"]
    )
    ours = numbers["methods"][command.NAME]
    assert len(ours["recall@10"]["values"]) == 2
    assert ours["bytes"] == 4 * ours["parameters"]
    assert ours["us_per_session"] > 0
    assert numbers["methods"]["ALKDRec, FPMC"]["llm_usd"] > 8 > 0 == numbers["methods"]["Student, FPMC"]["llm_usd"]
    against = {test["against"] for test in numbers["tests"]}
    assert against == set(numbers["methods"]) - {command.NAME}
    leaderboard.write(asked, numbers)
    assert json.loads(file.read_text()) == json.loads(json.dumps(numbers))
    text = (tmp_path / "runs" / "synthetic" / "leaderboard.md").read_text()
    assert f"**{command.NAME}**" in text
    assert text.index(command.NAME) < text.index("| Popularity")


def test_published_numbers_are_shown_as_published():
    found = leaderboard.of_paper("ML")
    assert found["ALKDRec, FPMC (published)"]["recall@10"] > found["Student, FPMC (published)"]["recall@10"]


def test_the_loudest_item_ranks_by_the_maximum(world):
    recipe = best.Recipe(max_steps=20)
    model, fitted = best.train(jax.random.key(0), world, preset=recipe)
    sharp, sharpened = best_rows.max_pooling(jax.random.key(0), world, recipe=recipe)
    plain, scaled = (jax.tree.map(lambda leaf: leaf[0], out.params) for out in (fitted, sharpened))
    items, mask = jax.numpy.asarray(world.validation.items), jax.numpy.asarray(world.validation.mask)
    vectors, table = model.apply(plain, items, mask), model.apply(plain, method="item_embeddings")
    each = np.asarray(vectors @ table.T)
    found = np.asarray(
        alkd.scoring.scores(sharp.apply(scaled, items, mask), sharp.apply(scaled, method="item_embeddings"))
    )
    loudest = each.max(1)
    np.testing.assert_allclose(found[:, 1:] / best_rows.SHARPNESS, loudest[:, 1:], atol=np.log(10) / 16 + 1e-3)
    pooled = np.log(np.exp(each).sum(1))
    assert np.abs(pooled - loudest)[:, 1:].max() > 2 * np.log(10) / 16


def test_lists_lie_at_the_ends_of_their_sessions(world):
    lists = alkd.Rankings(
        session_id=np.asarray(world.train.session_id)[[5, 2]],
        items=np.array([[7, 8], [9, 0]], np.int32),
        mask=np.array([[True, True], [True, False]]),
    )
    items, gain = best_sessions.last_position_lists(world, lists)
    examples = alkd.training.examples.prefix_examples(world.train_sequences)
    session, position = np.asarray(examples.session), np.asarray(examples.position)
    listed = np.flatnonzero(items.any(1))
    assert session[listed].tolist() == [2, 5]
    assert (position[listed] == np.asarray(world.train_sequences.offsets)[[3, 6]] - 1).all()
    assert items[listed].tolist() == [[9, 0], [7, 8]]
    assert gain[listed].tolist() == [[3, 0], [3, 3]]
    assert not np.delete(gain, listed, axis=0).any()


def test_walked_sessions_follow_the_training_ones(world):
    own, more = world.train_sequences, best_sessions.with_walks(world)
    assert (np.asarray(more.items)[: len(own.items)] == own.items).all()
    assert 1.5 * len(own) < len(more) <= 2 * len(own)
    assert more.offsets[-1] == len(more.items)
    counts = baselines.count(own, world.num_items)
    walked = np.split(more.items[len(own.items) :], more.offsets[len(own) + 1 : -1] - len(own.items))
    assert all(counts.followers[a, b] > 0 for walk in walked[:100] for a, b in itertools.pairwise(walk))


@pytest.mark.skipif(not RELEASE.exists(), reason="the authors' released files are not beside the project")
def test_lists_are_chosen_and_trusted_by_what_counts_say():
    dataset = alkd.data.load_released(RELEASE, "ML")
    recorded, _ = alkd.data.load_released_rankings(RELEASE, "ML", dataset=dataset)
    thin = best_lists.thinnest(dataset, recorded, 500)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    row = {session: n for n, session in enumerate(dataset.train.session_id.tolist())}

    def said(lists):
        rows = [row[session] for session in lists.session_id.tolist()]
        items, mask = dataset.train.items[rows], dataset.train.mask[rows]
        return np.log1p(np.asarray(counts.followers.sum(1)).ravel())[items][mask].mean()

    assert len(thin) == 500
    assert said(thin) < said(recorded) - 1
    trust = best_lists.agreement(dataset, thin)
    assert trust.mean() == pytest.approx(1)
    assert trust.min() >= 0
    shuffled = alkd.Rankings(thin.session_id, np.roll(thin.items, 7, axis=0), np.roll(thin.mask, 7, axis=0))
    # Trust is relative; what is shared with counts, before it is made 1 on average, is far rarer in others' lists.
    assert (best_lists.agreement(dataset, shuffled) == 0).mean() > (trust == 0).mean()
