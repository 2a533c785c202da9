"""Objectives: each is the loss it is named after, seen through a backbone, and every one trains."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses, models, objectives, samplers, training
from alkd_jax.training.augmentation import Augmented
from alkd_jax.training.examples import last_item_examples, sequences_of
from tests.helpers.compilations import compilations
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

SAMPLED = ("bpr", "bce", "softmax")


@pytest.fixture(scope="module")
def dataset():
    return cyclic_sessions(300, 0, 0), cyclic_sessions(90, 300, 1), models.create("fpmc", num_items=NUM_ITEMS, dim=6)


UNIFORM = samplers.uniform(NUM_ITEMS)
LIST_ITEMS = jnp.asarray(np.random.default_rng(0).integers(0, NUM_ITEMS + 1, (300, 8)), jnp.int32)
LIST_GAIN = jnp.asarray(np.random.default_rng(1).random((300, 8)), jnp.float32)


@pytest.fixture
def batch(dataset):
    train = dataset[0]
    return last_item_examples(train).take(jnp.arange(16), train)


@pytest.fixture(scope="module")
def log_frequency(dataset):
    return jnp.asarray(samplers.log_frequency(dataset[0].target, NUM_ITEMS))


@pytest.fixture
def params(dataset):
    return jax.tree.map(lambda leaf: 6 * leaf, models.init_params(jax.random.key(3), dataset[2]))


def vectors_and_table(dataset, params, batch):
    model = dataset[2]
    return model.apply(params, batch.items, batch.mask), model.apply(params, method="item_embeddings")


def test_full_softmax_is_the_same_in_chunks(dataset, params, batch, key):
    dense = objectives.FullSoftmax(dataset[2])(params, batch, key)
    chunked = objectives.FullSoftmax(dataset[2], chunk_size=7)(params, batch, key)
    vectors, table = vectors_and_table(dataset, params, batch)
    np.testing.assert_allclose(dense, losses.full_softmax(vectors, table, batch.target), rtol=1e-6)
    np.testing.assert_allclose(chunked, dense, rtol=1e-6)


def test_sampled_softmax_tends_to_the_full_one_as_draws_grow(dataset, params, batch, key):
    full = float(objectives.FullSoftmax(dataset[2])(params, batch, key))
    loss = objectives.SampledLoss(dataset[2], UNIFORM, "softmax", num_negatives=20_000)
    without_seen = jnp.log1p(-seen_share(dataset, params, batch))
    found = float(loss(params, batch, key))
    assert found == pytest.approx(full + float(without_seen.mean()), abs=5e-3)
    few = np.mean(
        [
            objectives.SampledLoss(dataset[2], UNIFORM, "softmax", num_negatives=4)(params, batch, k)
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
    loss = objectives.SampledLoss(dataset[2], UNIFORM, kind, num_negatives=5)
    vectors, table = vectors_and_table(dataset, params, everything_seen)
    positive = (vectors * table[batch.target]).sum(-1)
    wanted = {"bpr": 0.0, "softmax": 0.0, "bce": float(jax.nn.softplus(-positive).mean())}[kind]
    assert float(loss(params, everything_seen, key)) == pytest.approx(wanted, abs=1e-6)


def test_in_batch_softmax_by_hand(dataset, params, batch, log_frequency, key):
    vectors, table = vectors_and_table(dataset, params, batch)
    corrected = np.asarray(vectors @ table[batch.target].T - log_frequency[batch.target][None, :], np.float64)
    target = np.asarray(batch.target)
    total = 0.0
    for b in range(16):
        kept = [c for c in range(16) if c == b or target[c] != target[b]]
        total += np.log(np.exp(corrected[b, kept]).sum()) - corrected[b, b]
    loss = objectives.InBatchSoftmax(dataset[2], log_frequency)
    assert float(loss(params, batch, key)) == pytest.approx(total / 16, rel=1e-5)


def test_listwise_reads_the_list_of_the_example(dataset, params, batch, key):
    vectors, table = vectors_and_table(dataset, params, batch)
    listed, gain = LIST_ITEMS[:16], LIST_GAIN[:16]
    wanted = losses.listwise_softmax(jnp.einsum("bd,bkd->bk", vectors, table[listed]), gain, where=listed > 0)
    loss = objectives.ListwiseSoftmax(dataset[2], LIST_ITEMS, LIST_GAIN)
    np.testing.assert_allclose(loss(params, batch, key), wanted, rtol=1e-6)


def make_losses(model, log_frequency):
    sampled = {kind: objectives.SampledLoss(model, UNIFORM, kind, num_negatives=8) for kind in SAMPLED}
    return sampled | {
        "in-batch bpr": objectives.InBatchBPR(model),
        "released": objectives.InBatchBPR(model, released=True),
        "in-batch softmax": objectives.InBatchSoftmax(model, log_frequency),
        "full softmax": objectives.FullSoftmax(model),
        "chunked softmax": objectives.FullSoftmax(model, chunk_size=16),
    }


LOSSES = [*SAMPLED, "in-batch bpr", "released", "in-batch softmax", "full softmax", "chunked softmax"]


def takes_steps(dataset, log_frequency, backbone, name, targets):
    train, validation, _ = dataset
    model = models.create(backbone, num_items=NUM_ITEMS, dim=4)
    options = dict(batch_size=32, steps_per_validation=2, max_steps=2, recall_at=5, targets=targets)
    loss = make_losses(model, log_frequency)[name]
    out = training.fit(jax.random.key(0), model, train, validation, loss=loss, **options)
    return np.isfinite(out.history.loss[:, 1:]).all()


@pytest.mark.parametrize(
    ("backbone", "name", "targets"),
    [("fpmc", "bce", "last"), ("fpmc", "in-batch bpr", "cloze"), ("stamp", "chunked softmax", "all")],
)
def test_backbones_train_with_other_losses_on_other_targets(dataset, log_frequency, backbone, name, targets):
    assert takes_steps(dataset, log_frequency, backbone, name, targets)


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["last", "all", "cloze"])
@pytest.mark.parametrize("backbone", ["fpmc", "stamp", "attmix"])
def test_every_backbone_trains_with_every_loss_on_every_kind_of_target(dataset, log_frequency, backbone, targets):
    for name in LOSSES:
        assert takes_steps(dataset, log_frequency, backbone, name, targets), name


@pytest.mark.parametrize(
    "name", ["bpr", "in-batch softmax", *(pytest.param(n, marks=pytest.mark.slow) for n in ("softmax", "full softmax"))]
)
def test_every_loss_learns_the_chain(dataset, log_frequency, name):
    train, validation, model = dataset
    loss = make_losses(model, log_frequency)[name]
    options = dict(batch_size=64, steps_per_validation=20, max_steps=200, recall_at=5, learning_rate=0.03)
    out = training.fit(
        jax.random.key(0),
        model,
        train,
        validation,
        targets="all",
        sequences=sequences_of(train),
        loss=loss,
        **options,
    )
    assert out.best_metric[0] > out.history.recall[0, 0] + 0.3


def popular(target):
    return samplers.by_popularity(target, NUM_ITEMS)


@flax.struct.dataclass
class FavoredTargets(objectives.Objective):
    """A user's objective: a squared error of the target's score, weighted by item."""

    item_weight: jax.Array
    margin: float = flax.struct.field(pytree_node=False, default=1.0)

    def loss(self, params, batch, candidates, key):
        targets = self.item_embeddings(params)[batch.target]
        scores = (self.encode(params, batch, key) * targets).sum(-1)
        return losses.weighted_mean((scores - self.margin) ** 2, self.item_weight[batch.target])


def weighted_squares(item_weight, params, batch):
    """What :class:`FavoredTargets` computes for FPMC, as a function of its array, without a key."""
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=6)
    targets = model.apply(params, method="item_embeddings")[batch.target]
    scores = (model.apply(params, batch.items, batch.mask) * targets).sum(-1)
    return losses.weighted_mean((scores - 1.0) ** 2, item_weight[batch.target])


PAIRS_OF_LOSSES = {
    "sampler": lambda model: [
        objectives.SampledLoss(model, sampler, "bce") for sampler in (UNIFORM, popular(np.array([3, 3, 5])))
    ],
    "frequencies": lambda model: [objectives.InBatchSoftmax(model, scale * LIST_GAIN[:41, 0]) for scale in (1, 2)],
    "lists": lambda model: [
        objectives.DistilledSoftmax(model, *lists)
        for lists in ((LIST_ITEMS, LIST_GAIN, 0.5), (LIST_ITEMS[::-1], 1 - LIST_GAIN, 0.2))
    ],
    "a user's objective": lambda model: [FavoredTargets(model, scale + LIST_GAIN[:41, 0]) for scale in (0, 1)],
    "a function with arrays": lambda model: [
        jax.tree_util.Partial(weighted_squares, scale + LIST_GAIN[:41, 0]) for scale in (0, 1)
    ],
    "augmented": lambda model: [
        Augmented(objectives.InBatchSoftmax(model, scale * LIST_GAIN[:41, 0]), drop=0.2) for scale in (1, 2)
    ],
}


@pytest.mark.parametrize("name", PAIRS_OF_LOSSES)
def test_training_again_with_other_arrays_of_the_same_shapes_compiles_nothing(dataset, name):
    train, validation, model = dataset
    one, two = PAIRS_OF_LOSSES[name](model)
    options = dict(batch_size=32, steps_per_validation=2, max_steps=2, recall_at=5)
    first = training.fit(jax.random.key(0), model, train, validation, loss=one, **options)
    with compilations() as compiled:
        second = training.fit(jax.random.key(0), model, train, validation, loss=two, **options)
    assert not compiled
    assert (second.history.loss[:, 1:] != first.history.loss[:, 1:]).all()


def test_a_users_objective_and_functions_train_alike(dataset):
    train, validation, model = dataset
    weight = LIST_GAIN[:41, 0]
    options = dict(batch_size=32, steps_per_validation=2, max_steps=4, recall_at=5)

    def without_key(params, batch):
        return weighted_squares(weight, params, batch)

    def with_key(params, batch, key):
        return weighted_squares(weight, params, batch)

    def with_option(params, batch, scale=1.0):
        return scale * weighted_squares(weight, params, batch)

    expected = training.fit(jax.random.key(0), model, train, validation, loss=FavoredTargets(model, weight), **options)
    for loss in (without_key, with_key, with_option, jax.tree_util.Partial(weighted_squares, weight)):
        actual = training.fit(jax.random.key(0), model, train, validation, loss=loss, **options)
        np.testing.assert_allclose(actual.history.loss, expected.history.loss, rtol=1e-5)
        assert jax.tree.structure(actual.params) == jax.tree.structure(expected.params)


def test_arrays_are_leaves_and_backbone_and_options_are_static(log_frequency):
    one, two = (models.create("fpmc", num_items=9, dim=3) for _ in range(2))
    for make, num_leaves in (
        (lambda model: objectives.InBatchBPR(model), 0),
        (lambda model: objectives.InBatchSoftmax(model, log_frequency), 1),
        (lambda model: objectives.FullSoftmax(model, chunk_size=3), 0),
        (lambda model: objectives.ListwiseSoftmax(model, LIST_ITEMS, LIST_GAIN), 2),
        (lambda model: objectives.DistilledSoftmax(model, LIST_ITEMS, LIST_GAIN, 0.5), 3),
        (lambda model: objectives.SampledLoss(model, UNIFORM, "bpr"), 2),
    ):
        assert jax.tree.structure(make(one)) == jax.tree.structure(make(two))
        assert len(jax.tree.leaves(make(one))) == num_leaves
    structures = [jax.tree.structure(objectives.InBatchBPR(one, released=released)) for released in (False, True)]
    assert structures[0] != structures[1]


@pytest.mark.parametrize(
    ("kind", "number", "message"), [("hinge", 1, "kind is 'hinge'"), ("bpr", 0, "num_negatives is 0")]
)
def test_bad_options_are_refused(dataset, kind, number, message):
    with pytest.raises(ValueError, match=message):
        objectives.SampledLoss(dataset[2], UNIFORM, kind, num_negatives=number)
