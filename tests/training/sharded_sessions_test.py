import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, sharding, training
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.sharded_sessions import digest_in_parts, lies_in_parts
from tests.helpers.cyclic_sessions import cyclic_sessions


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh("data=1")


def test_rows_are_filled_up_with_examples_of_weight_0(mesh):
    sessions = cyclic_sessions(90, 0, 0)
    train, examples = training.shard_sessions(sessions, mesh)
    assert all(lies_in_parts(leaf) for leaf in jax.tree.leaves((train, examples)))
    assert not lies_in_parts(sessions.items)
    np.testing.assert_array_equal(train.items[:90], sessions.items)
    np.testing.assert_array_equal(train.target[90:], np.repeat(sessions.target[-1:], 1024 - 90))
    np.testing.assert_array_equal(examples.weight, np.arange(1024) < 90)
    np.testing.assert_array_equal(examples.session, np.arange(1024))


def test_the_digest_depends_on_every_number_and_its_place():
    array = jnp.arange(60, dtype=jnp.int32).reshape(20, 3)
    digests = [array, array.at[7, 1].set(0), array.T, array[::-1], array.astype(jnp.float32), array > 3, array > 4]
    found = {tuple(np.asarray(digest_in_parts(each)).tolist()) for each in digests}
    assert len(found) == len(digests)


def test_a_training_in_parts_continues_and_another_is_refused(tmp_path, mesh):
    model, validation = models.create("fpmc", num_items=40, dim=4), cyclic_sessions(60, 200, 1)

    def fit(sessions, *, max_steps, folder=tmp_path):
        train, examples = training.shard_sessions(sessions, mesh)
        options = {"batch_size": 32, "steps_per_validation": 5, "max_steps": max_steps, "mesh": mesh}
        state = TrainingFolder(folder, every=1)
        key = jax.random.key(0)
        return training.fit(key, model, train, validation, examples=examples, checkpoints=state, **options)

    sessions = cyclic_sessions(200, 0, 0)
    fit(sessions, max_steps=5)
    continued, alone = fit(sessions, max_steps=10), fit(sessions, max_steps=10, folder=tmp_path / "alone")
    np.testing.assert_array_equal(continued.history.loss, alone.history.loss)
    other = sessions.replace(target=jnp.roll(sessions.target, 1))
    with pytest.raises(ValueError, match="holds another training run, which differs in examples"):
        fit(other, max_steps=10)
