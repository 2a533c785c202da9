"""ALKDRec's distillation: pairs, weights, and that it learns what the lists say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import distillation, models, scoring
from alkd_jax.distillation import alkdrec
from alkd_jax.types import Rankings, Sessions

NUM_ITEMS = 60


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    items = rng.integers(1, NUM_ITEMS + 1, (20, 4)).astype(np.int32)
    target = rng.integers(1, NUM_ITEMS + 1, 20).astype(np.int32)
    return Sessions(items, items > 0, target, np.arange(100, 120, dtype=np.int32))


def lists_for(session_id, length=25, seed=0):
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(NUM_ITEMS)[:length] + 1 for _ in session_id]).astype(np.int32)
    return Rankings(np.asarray(session_id, np.int32), items, items > 0)


def test_position_weights_are_the_papers():
    assert alkdrec.position_weights(27).tolist() == [3] * 5 + [2] * 10 + [1] * 10 + [0] * 2
    released = alkdrec.position_weights(25, bounds=alkdrec.RELEASED_BOUNDS)
    assert released.tolist() == [3] * 6 + [2] * 10 + [1] * 9
    assert (alkdrec.position_weights(25).sum(), released.sum()) == (45, 47)


def test_every_listed_item_is_repeated_by_its_weight_with_its_session(train):
    lists = lists_for([117, 103])
    examples = distillation.ranking_examples(lists, train)
    pairs = np.stack([examples.session, examples.target], 1).tolist()
    assert len(pairs) == 90
    assert pairs.count([17, int(lists.items[0, 0])]) == 3
    assert pairs.count([3, int(lists.items[1, 7])]) == 2
    assert pairs.count([3, int(lists.items[1, 24])]) == 1


def test_short_lists_give_fewer_pairs(train):
    lists = lists_for([101])
    short = lists.replace(mask=lists.mask & (np.arange(25) < 6))
    assert len(distillation.ranking_examples(short, train).target) == 17


def test_stacked_examples_keep_each_seed_its_own(train):
    one, two = (distillation.ranking_examples(lists_for(ids), train) for ids in ([100, 101], [105]))
    both = distillation.stack_examples([one, two])
    assert both.target.shape == (2, 90)
    assert both.weight.sum(1).tolist() == [90, 45]
    np.testing.assert_array_equal(both.target[1, :45], two.target)


def test_lists_for_sessions_outside_training_are_refused(train):
    with pytest.raises(ValueError, match="session_id has 1 ids, the first 7, of no session"):
        distillation.ranking_examples(lists_for([101, 7]), train)


@pytest.mark.parametrize("released", [False, True])
def test_the_student_comes_to_rank_the_listed_items_high(train, released):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=8)
    student = jax.vmap(lambda k: models.init_params(k, model))(jax.random.split(jax.random.key(0), 2))
    lists = lists_for(train.session_id, length=10)
    wanted = train.replace(target=lists.items[:, 0])
    out = distillation.distill(
        jax.random.key(1),
        model,
        student,
        train,
        wanted,
        lists,
        released=released,
        seeds=2,
        learning_rate=0.02,
        batch_size=128,
        max_steps=400,
        recall_at=5,
    )

    def share_listed(params):
        vectors = model.apply(params, jnp.asarray(train.items), jnp.asarray(train.mask))
        table = model.apply(params, method="item_embeddings")
        _, top = scoring.top_k(vectors, table, 5, exclude=jnp.zeros((20, 1), jnp.int32))
        return np.mean([np.isin(t, row).mean() for t, row in zip(np.asarray(top), lists.items, strict=True)])

    for seed in range(2):
        before, after = (
            share_listed(jax.tree.map(lambda leaf, s=seed: leaf[s], tree)) for tree in (student, out.params)
        )
        assert after > before + 0.3


@pytest.mark.usefixtures("unchecked_types")
def test_a_list_that_holds_an_item_twice_is_refused_unless_it_is_as_released(train):
    items = np.array([[3, 2, 1, 0], [4, 5, 4, 0]], np.int32)
    lists = Rankings(train.session_id[:2], items, items > 0)
    with pytest.raises(ValueError, match=rf"list of session {train.session_id[1]} holds item 4 twice"):
        distillation.distill(None, None, None, train, train, lists)
    alkdrec.check_distinct(lists.take([0]))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("bounds", [[5.5], [-1], [np.nan]])
def test_bounds_that_are_no_positions_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds"):
        alkdrec.position_weights(25, bounds=bounds)


@pytest.mark.parametrize("list_loss", ["ranknet", "partial_plackett_luce"])
def test_whole_lists_teach_their_order_to_each_seed_with_its_own(train, list_loss):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=8)
    students = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), 2))
    lists = [lists_for(train.session_id[:4], length=4, seed=seed) for seed in range(2)]
    lists[1] = lists[1].take(slice(0, 3))
    options = {"list_loss": list_loss, "learning_rate": 0.1, "max_steps": 40, "steps_per_validation": 40}
    fitted = distillation.distill(
        jax.random.key(1), model, students, train, train, lists, seeds=2, keep_best=False, **options
    )
    for seed, own in enumerate(lists):
        params = jax.tree.map(lambda leaf, s=seed: leaf[s], fitted.params)
        sessions = train.take(np.arange(len(own)))
        vectors = models.encode(model, params, sessions.items, sessions.mask)
        scores = np.asarray(scoring.scores(vectors, model.apply(params, method="item_embeddings")))
        listed = np.take_along_axis(scores, np.asarray(own.items), axis=1)
        assert (np.diff(listed, axis=1) < 0).mean() > 0.8


@pytest.mark.usefixtures("unchecked_types")
def test_a_loss_of_whole_lists_refuses_what_belongs_to_pairs(train):
    lists = lists_for(train.session_id[:2])
    for options in ({"released": True}, {"bounds": (5,)}):
        with pytest.raises(ValueError, match="list_loss is 'ranknet' with released or bounds; expected 'bpr'"):
            distillation.distill(None, None, None, train, train, lists, list_loss="ranknet", **options)
    with pytest.raises(ValueError, match="list_loss is 'rank'; expected 'bpr' or 'ranknet'"):
        distillation.distill(None, None, None, train, train, lists, list_loss="rank")
