"""Evaluation of models: ranks against brute force, batching, the released protocol and the released student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import evaluation, models, sharding
from alkd_jax.types import Sessions

NUM_ITEMS = 50


@pytest.fixture
def setting():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 37)
    items = np.stack([rng.permutation(NUM_ITEMS)[:7] + 1 for _ in lengths]).astype(np.int32)
    mask = np.arange(6) < lengths[:, None]
    sessions = Sessions(np.where(mask, items[:, :6], 0), mask, items[:, 6], np.arange(37, dtype=np.int32))
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=4)
    return model, models.init_params(jax.random.key(0), model), sessions


def all_scores(model, params, sessions):
    vectors = model.apply(params, jnp.asarray(sessions.items), jnp.asarray(sessions.mask))
    return np.asarray(vectors @ model.apply(params, method="item_embeddings").T)


def test_ranks_equal_brute_force(setting):
    model, params, sessions = setting
    out = evaluation.evaluate(model, params, sessions)
    for n, row in enumerate(all_scores(model, params, sessions)):
        rivals = [v for v in range(1, NUM_ITEMS + 1) if v not in sessions.items[n]]
        assert out.ranks[n] == 1 + sum(row[v] > row[sessions.target[n]] for v in rivals)
    assert out.ranks.dtype == np.int32
    assert out.metrics == out.metrics | alkd.evaluation.metrics.from_ranks(out.ranks)


@pytest.mark.parametrize("batch_size", [1, 8, 36, 37, 500])
def test_ranks_do_not_depend_on_the_batch_size(setting, batch_size):
    model, params, sessions = setting
    expected = evaluation.evaluate(model, params, sessions).ranks
    np.testing.assert_array_equal(evaluation.evaluate(model, params, sessions, batch_size=batch_size).ranks, expected)


@pytest.mark.parametrize("chunk_size", [1, 16, 50, 1000])
def test_ranks_do_not_depend_on_the_chunk_size(setting, chunk_size):
    model, params, sessions = setting
    expected = evaluation.evaluate(model, params, sessions).ranks
    ranks = evaluation.evaluate(model, params, sessions, chunk_size=chunk_size).ranks
    np.testing.assert_array_equal(ranks, expected)


class Counted(models.FPMC):
    """FPMC that notes every time it is traced."""

    def __call__(self, items, mask, *, train=False):
        TRACES.append(items.shape)
        return super().__call__(items, mask, train=train)


TRACES: list[tuple[int, ...]] = []


def test_however_ragged_the_last_batch_one_shape_is_compiled_for_all_splits_and_seeds(setting):
    _, params, sessions = setting
    model = Counted(num_items=NUM_ITEMS, dim=4)
    TRACES.clear()
    for num in (37, 36, 33, 32, 9, 8):
        evaluation.evaluate(model, params, jax.tree.map(lambda a, n=num: a[:n], sessions), batch_size=8)
    evaluation.evaluate_seeds(
        model, jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), params), sessions, batch_size=8
    )
    assert TRACES == [(8, 6)]


def test_a_model_of_constant_scores_is_at_chance_level(setting):
    model, params, sessions = setting
    out = evaluation.evaluate(model, jax.tree.map(jnp.zeros_like, params), sessions)
    expected = (NUM_ITEMS - sessions.mask.sum(1) + 2) // 2
    np.testing.assert_array_equal(out.ranks, expected)


def test_seeds_are_evaluated_one_by_one(setting):
    model, params, sessions = setting
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf]), params)
    outs = evaluation.evaluate_seeds(model, two, sessions)
    np.testing.assert_array_equal(outs[0].ranks, evaluation.evaluate(model, params, sessions).ranks)
    assert len(outs) == 2


def test_released_protocol_treats_item_1_as_padding(setting):
    model, params, sessions = setting
    items = sessions.items.copy()
    items[0, :3], sessions.mask[0] = (5, 1, 7), np.arange(6) < 3
    items[0, 3:] = 0
    target = sessions.target.copy()
    target[0], target[1] = 9, 1
    sessions = sessions.replace(items=items, target=target)
    out = evaluation.evaluate(model, params, sessions, protocol="released")

    blind = evaluation.released_view(sessions)
    assert blind.items[0].tolist() == [5, 0, 7, 0, 0, 0]
    row = all_scores(model, params, blind)[0]
    rivals = [v for v in range(2, NUM_ITEMS + 1) if v not in (5, 7)]
    assert out.ranks[0] == 1 + sum(row[v] > row[9] for v in rivals)
    assert out.ranks[1] == NUM_ITEMS
    assert {"ndcg_released@5", "ndcg_released@10"} <= out.metrics.keys()


def test_hash_order_takes_the_position_from_the_set():
    lists = np.asarray([[8, 1, 0], [3, 2, 1]])
    order = list({8, 1, 0})
    expected = (1 / np.log2(order.index(8) + 2) + 0.0) / 2
    assert evaluation.hash_order_ndcg(lists, np.asarray([8, 5])) == pytest.approx(expected)


@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused(setting):
    model, params, sessions = setting
    with pytest.raises(ValueError, match="protocol is 'paper'"):
        evaluation.evaluate(model, params, sessions, protocol="paper")
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluation.evaluate(model, params, sessions, batch_size=0)
    with pytest.raises(ValueError, match="sessions is empty"):
        evaluation.evaluate(model, params, jax.tree.map(lambda a: a[:0], sessions))
    with pytest.raises(ValueError, match=r"targets span .*; expected 1\.\.50"):
        evaluation.evaluate(model, params, sessions.replace(target=sessions.target + 50))
    with pytest.raises(ValueError, match="targets are numbers of type float64"):
        evaluation.evaluate(model, params, sessions.replace(target=sessions.target + 0.0))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_named_with_their_row(setting, wrong):
    model, params, sessions = setting
    params = jax.tree.map(np.array, params)
    name = sorted(params["params"])[-1]
    params["params"][name][17, 2] = wrong
    two_seeds = jax.tree.map(lambda leaf: np.stack([np.zeros_like(leaf), leaf]), params)
    with pytest.raises(ValueError, match=rf"^params/{name}\[17, 2\] is {wrong}; expected a finite number$"):
        evaluation.evaluate(model, params, sessions)
    with pytest.raises(ValueError, match=rf"^params/{name}\[1, 17, 2\] is {wrong}"):
        evaluation.evaluate_seeds(model, two_seeds, sessions)


def test_parameters_of_another_catalogue_are_refused(setting):
    model, params, sessions = setting
    with pytest.raises(ValueError, match=r"params are of another model .*; expected parameters of FPMC"):
        evaluation.evaluate(models.create("fpmc", num_items=60, dim=4), params, sessions)
    with pytest.raises(ValueError, match="params are of another model"):
        evaluation.evaluate(model, {"params": {}}, sessions)


PUBLISHED = {
    "FPMC": {
        "recall@5": 0.00730,
        "recall@10": 0.01055,
        "ndcg@5": 0.00539,
        "ndcg@10": 0.00645,
        "ndcg_released@5": 0.00379,
        "ndcg_released@10": 0.00415,
    },
    "STAMP": {
        "recall@5": 0.00609,
        "recall@10": 0.01176,
        "ndcg@5": 0.00426,
        "ndcg@10": 0.00605,
        "ndcg_released@5": 0.00364,
        "ndcg_released@10": 0.00563,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_released_student_gives_the_published_numbers(release, released_dataset, name):
    dataset = released_dataset("ML")
    model, params = alkd.data.load_released_student(release / "best_model" / f"ML+{name}_S.pt")
    out = evaluation.evaluate(model, params, dataset.test, protocol="released")
    for metric, value in PUBLISHED[name].items():
        assert out.metrics[metric] == pytest.approx(value, abs=1e-5), metric


@pytest.mark.parametrize(("num", "most", "size"), [(2465, 512, 496), (37, 512, 37), (512, 512, 512), (2000, 500, 500)])
def test_batches_waste_little_and_are_as_few_as_asked(num, most, size):
    assert sharding.even_batch_size(num, most) == size
    assert -(-num // size) == -(-num // most)
