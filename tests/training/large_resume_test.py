"""Training by rows that is cut off goes on to the very bits it would have reached; several seeds, one after another."""

import functools
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from alkd_jax import models, objectives, training
from alkd_jax.models import stamp
from alkd_jax.models.fpmc import xavier_normal_table
from alkd_jax.ops import embedding
from alkd_jax.training import loop
from alkd_jax.training.checkpoints import TrainingFolder
from tests.helpers import paths
from tests.training.large_test import NUM_ITEMS, SAMPLED, TRAIN, VALIDATION

TRAINER = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.training.large_resume_test import trained
def killed(now):
    if now.step >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
trained(pathlib.Path(sys.argv[2]), progress=killed)
"""

# The same object every time, so that a second training reuses the first one's compilation.
LOSS_OF = functools.partial(objectives.sampled_loss, kind="softmax", num_negatives=3)


def trained(folder, *, key=0, dim=4, rate=0.3, every=2, data=(TRAIN, VALIDATION), **options):
    defaults = {
        "loss_of": LOSS_OF,
        "loss_inputs": SAMPLED,
        "row_optimizer": embedding.adam(rate),
        "batch_size": 64,
        "max_steps": 40,
        "steps_per_validation": 5,
        "patience": 100,
        "recall_at": 5,
    }
    return training.fit_large(
        jax.random.key(key),
        models.create("stamp", num_items=NUM_ITEMS, dim=dim),
        *data,
        checkpoints=None if folder is None else TrainingFolder(folder, every=every),
        **(defaults | options),
    )


def given(seed):
    return models.init_params(jax.random.key(seed), models.create("stamp", num_items=NUM_ITEMS, dim=4))


@pytest.fixture(scope="module")
def unbroken():
    return trained(None)


def assert_same(one, two):
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_array_equal(left, right)
    for field in ("step", "loss", "recall"):
        np.testing.assert_array_equal(getattr(one.history, field), getattr(two.history, field))
    np.testing.assert_array_equal(one.best_step, two.best_step)
    np.testing.assert_array_equal(one.best_metric, two.best_metric)


@pytest.mark.parametrize("deaths", [(25,), pytest.param((15, 25), marks=pytest.mark.slow)])
def test_killed_and_run_again_it_reaches_the_same_bits(tmp_path, unbroken, deaths):
    assert 0 < unbroken.best_step[0] < 40, "the best are not the last"
    for die_at in deaths:
        command = [sys.executable, "-c", TRAINER, str(paths.ROOT), str(tmp_path), str(die_at)]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=1200)
        assert done.returncode == -signal.SIGKILL, done.stderr
    seen = []
    out = trained(tmp_path, progress=lambda now: seen.append(now.step))
    assert seen[0] == 25, "it went on from a checkpoint"
    assert_same(out, unbroken)
    assert_same(trained(tmp_path, progress=lambda now: pytest.fail("a step was taken")), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_last_parameters_go_on_too_in_either_type(tmp_path, dtype):
    options = {"keep_best": False, "table_dtype": dtype, "row_optimizer": embedding.adagrad(0.1, rowwise=True)}
    trained(tmp_path, max_steps=15, every=1, **options)
    assert_same(trained(tmp_path, **options), trained(None, **options))


@pytest.mark.slow
def test_the_best_may_be_kept_on_the_host(tmp_path, unbroken, monkeypatch):
    # As where tables are on a device that has no room for a copy.
    monkeypatch.setattr(loop.RowRun, "is_copy_on_devices", False)
    trained(tmp_path, max_steps=20)
    out = trained(tmp_path)
    assert {type(leaf) for leaf in jax.tree.leaves(out.params)} == {np.ndarray}
    assert_same(out, unbroken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 32}, r"differs in batch_size \(64 there, 32 here\)"),
        ({"rate": 0.1}, "differs in row_optimizer"),
        ({"dim": 5}, "differs in model"),
        ({"data": (VALIDATION, VALIDATION)}, "differs in.*examples.*train"),
        ({"key": 1}, "differs in seeds"),
        ({"table_dtype": "bfloat16"}, r"differs in .*table_dtype \(float32 there, bfloat16 here\)"),
        ({"keep_best": False}, "differs in keep_best"),
        ({"loss_of": objectives.in_batch_loss}, "differs in loss"),
        ({"initial": given(0)}, r"differs in draws .*initial \(drawn there, \w{16} here\);"),
    ],
)
def test_another_training_is_refused_with_the_difference_named(kept, change, message):
    with pytest.raises(ValueError, match=message):
        trained(kept, **change)


def test_other_given_parameters_are_refused_and_the_same_are_not(tmp_path):
    trained(tmp_path, max_steps=5, initial=given(0))
    trained(tmp_path, max_steps=5, initial=given(0), progress=lambda now: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=r"differs in initial \(\w{16} there, \w{16} here\);"):
        trained(tmp_path, initial=given(1))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    trained(folder, max_steps=5)
    return folder


def test_seeds_are_trained_one_after_the_other_each_as_if_alone(tmp_path, unbroken):
    told = []
    both = trained(tmp_path, seeds=[3, 0], patience=3, progress=told.append)
    alone = trained(None, patience=3)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(both.params)} == {2}
    assert {type(leaf) for leaf in jax.tree.leaves(both.params)} == {np.ndarray}
    for left, right in zip(jax.tree.leaves(both.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(left[1], right)
        assert not np.array_equal(left[0], right)
    taken = len(alone.history.step)
    np.testing.assert_array_equal(both.history.loss[1, :taken], alone.history.loss[0])
    assert np.isnan(both.history.loss[1, taken:]).all()
    assert both.history.recall.shape == (2, len(both.history.step))
    np.testing.assert_array_equal(both.best_step[1:], alone.best_step)
    assert told[0].active == 2
    assert np.isnan([now.recalls[1] for now in told]).sum() == sum(~np.isnan(both.history.recall[0]))
    # A third seed is trained beside those that are there.
    steps = []
    more = trained(tmp_path, seeds=[0, 3, 4], patience=3, progress=lambda now: steps.append(now.active))
    np.testing.assert_array_equal(
        more.params["params"]["input_embedding"][:2], both.params["params"]["input_embedding"][::-1]
    )
    assert set(steps) <= {0, 1}


def test_what_draws_the_initial_values_is_told_too(kept, monkeypatch):
    monkeypatch.setattr(stamp, "small_normal_table", xavier_normal_table)
    with pytest.raises(ValueError, match=r"differs in draws \(\w{16} there, \w{16} here\);"):
        trained(kept)
