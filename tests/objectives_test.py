"""Objectives: each is the loss it is named after, seen through a backbone, and every one trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses, models, objectives, samplers, training
from alkd_jax.training.examples import last_item_examples, sequences_of
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

SAMPLED = ("bpr", "bce", "softmax")


@pytest.fixture(scope="module")
def dataset():
    return cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1), models.create("fpmc", num_items=NUM_ITEMS, dim=6)


@pytest.fixture
def batch(dataset):
    train = dataset[0]
    loss_inputs = {
        "sampler": samplers.uniform(NUM_ITEMS),
        "log_frequency": jnp.asarray(samplers.log_frequency(train.target, NUM_ITEMS)),
        "list_items": jnp.asarray(np.random.default_rng(0).integers(0, NUM_ITEMS + 1, (300, 8)), jnp.int32),
        "list_gain": jnp.asarray(np.random.default_rng(1).random((300, 8)), jnp.float32),
    }
    return last_item_examples(train).take(jnp.arange(16), train).replace(loss_inputs=loss_inputs)


@pytest.fixture
def params(dataset):
    return jax.tree.map(lambda leaf: 6 * leaf, models.init_params(jax.random.key(3), dataset[2]))


def vectors_and_table(dataset, params, batch):
    model = dataset[2]
    return model.apply(params, batch.items, batch.mask), model.apply(params, method="item_embeddings")


def test_full_softmax_is_the_same_in_chunks(dataset, params, batch, key):
    dense = objectives.full_softmax(dataset[2])(params, batch, key)
    chunked = objectives.full_softmax(dataset[2], chunk_size=7)(params, batch, key)
    vectors, table = vectors_and_table(dataset, params, batch)
    np.testing.assert_allclose(dense, losses.full_softmax(vectors, table, batch.target), rtol=1e-6)
    np.testing.assert_allclose(chunked, dense, rtol=1e-6)


def test_sampled_softmax_tends_to_the_full_one_as_draws_grow(dataset, params, batch, key):
    full = float(objectives.full_softmax(dataset[2])(params, batch, key))
    loss = objectives.sampled_loss(dataset[2], "softmax", num_negatives=20_000)
    without_seen = jnp.log1p(-seen_share(dataset, params, batch))
    found = float(loss(params, batch, key))
    assert found == pytest.approx(full + float(without_seen.mean()), abs=5e-3)
    few = np.mean(
        [
            objectives.sampled_loss(dataset[2], "softmax", num_negatives=4)(params, batch, k)
            for k in jax.random.split(key, 50)
        ]
    )
    assert abs(few - full) > 0.02


def seen_share(dataset, params, batch):
    """Share of the partition function that belongs to the input items, which the sampled loss never draws."""
    vectors, table = vectors_and_table(dataset, params, batch)
    scores = vectors @ table.T
    share = jax.nn.softmax(scores.at[:, 0].set(-jnp.inf), axis=1)
    seen = (jnp.arange(NUM_ITEMS + 1)[None, :, None] == batch.items[:, None, :]).any(-1)
    return jnp.where(seen, share, 0.0).sum(1)


@pytest.mark.parametrize("kind", SAMPLED)
def test_drawn_items_that_were_seen_do_not_count(dataset, params, batch, key, kind):
    everything_seen = batch.replace(
        items=jnp.broadcast_to(jnp.arange(1, NUM_ITEMS + 1), (16, NUM_ITEMS)), mask=jnp.ones((16, NUM_ITEMS), bool)
    )
    loss = objectives.sampled_loss(dataset[2], kind, num_negatives=5)
    vectors, table = vectors_and_table(dataset, params, everything_seen)
    positive = (vectors * table[batch.target]).sum(-1)
    wanted = {"bpr": 0.0, "softmax": 0.0, "bce": float(jax.nn.softplus(-positive).mean())}[kind]
    assert float(loss(params, everything_seen, key)) == pytest.approx(wanted, abs=1e-6)


def test_in_batch_softmax_by_hand(dataset, params, batch, key):
    vectors, table = vectors_and_table(dataset, params, batch)
    corrected = np.asarray(
        vectors @ table[batch.target].T - batch.loss_inputs["log_frequency"][batch.target][None, :], np.float64
    )
    target = np.asarray(batch.target)
    total = 0.0
    for b in range(16):
        kept = [c for c in range(16) if c == b or target[c] != target[b]]
        total += np.log(np.exp(corrected[b, kept]).sum()) - corrected[b, b]
    assert float(objectives.in_batch_softmax(dataset[2])(params, batch, key)) == pytest.approx(total / 16, rel=1e-5)


def test_listwise_reads_the_list_of_the_example(dataset, params, batch, key):
    vectors, table = vectors_and_table(dataset, params, batch)
    listed, gain = batch.loss_inputs["list_items"][:16], batch.loss_inputs["list_gain"][:16]
    wanted = losses.listwise_softmax(jnp.einsum("bd,bkd->bk", vectors, table[listed]), gain, where=listed > 0)
    np.testing.assert_allclose(objectives.listwise_loss(dataset[2])(params, batch, key), wanted, rtol=1e-6)


def make_losses(model):
    sampled = {kind: objectives.sampled_loss(model, kind, num_negatives=8) for kind in SAMPLED}
    return sampled | {
        "in-batch bpr": objectives.in_batch_loss(model),
        "released": objectives.in_batch_loss(model, released=True),
        "in-batch softmax": objectives.in_batch_softmax(model),
        "full softmax": objectives.full_softmax(model),
        "chunked softmax": objectives.full_softmax(model, chunk_size=16),
    }


def takes_steps(dataset, batch, backbone, name, targets):
    train, validation, _ = dataset
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    options = dict(batch_size=32, steps_per_validation=2, max_steps=2, recall_at=5, targets=targets)
    loss = make_losses(model)[name]
    out = training.fit(jax.random.key(0), model, train, validation, loss=loss, loss_inputs=batch.loss_inputs, **options)
    return np.isfinite(out.history.loss[:, 1:]).all()


@pytest.mark.parametrize(
    ("backbone", "name", "targets"),
    [("fpmc", "bce", "last"), ("fpmc", "in-batch bpr", "cloze"), ("stamp", "chunked softmax", "all")],
)
def test_backbones_train_with_other_losses_on_other_targets(dataset, batch, backbone, name, targets):
    assert takes_steps(dataset, batch, backbone, name, targets)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["last", "all", "cloze"])
@pytest.mark.parametrize("backbone", ["fpmc", "stamp", "attmix"])
def test_every_backbone_trains_with_every_loss_on_every_kind_of_target(dataset, batch, backbone, targets):
    for name in make_losses(dataset[2]):
        assert takes_steps(dataset, batch, backbone, name, targets), name


@pytest.mark.parametrize(
    "name", ["bpr", "in-batch softmax", *(pytest.param(n, marks=pytest.mark.slow) for n in ("softmax", "full softmax"))]
)
def test_every_loss_learns_the_chain(dataset, batch, name):
    train, validation, model = dataset
    loss = make_losses(model)[name]
    options = dict(batch_size=64, steps_per_validation=20, max_steps=200, recall_at=5, learning_rate=0.03)
    out = training.fit(
        jax.random.key(0),
        model,
        train,
        validation,
        targets="all",
        sequences=sequences_of(train),
        loss=loss,
        loss_inputs=batch.loss_inputs,
        **options,
    )
    assert out.best_metric[0] > out.history.recall[0, 0] + 0.3


def test_equal_arguments_give_the_same_function():
    one, two = (models.create("fpmc", num_items=9, dim=3) for _ in range(2))
    for make in (
        objectives.in_batch_loss,
        objectives.in_batch_softmax,
        objectives.full_softmax,
        objectives.listwise_loss,
    ):
        assert make(one) is make(two)
    assert objectives.sampled_loss(one, "bpr") is objectives.sampled_loss(two, "bpr")
    assert objectives.in_batch_loss(one) is not objectives.in_batch_loss(one, released=True)


@pytest.mark.parametrize(
    ("kind", "number", "message"), [("hinge", 1, "kind is 'hinge'"), ("bpr", 0, "num_negatives is 0")]
)
def test_bad_options_are_refused(dataset, kind, number, message):
    with pytest.raises(ValueError, match=message):
        objectives.sampled_loss(dataset[2], kind, num_negatives=number)
