"""Interrupted row-sparse training continues to bit-equal results; several seeds are trained one after the other."""

import jax
import numpy as np
import pytest

from alkd_jax import models, objectives
from alkd_jax.models import stamp
from alkd_jax.models.fpmc import xavier_normal_table
from alkd_jax.ops import embedding, platforms
from tests.helpers.interrupted_training import fit_large, run_until_killed
from tests.helpers.row_sparse_data import NUM_ITEMS, VALIDATION


def initial_params(seed):
    return models.init_params(jax.random.key(seed), models.create("stamp", num_items=NUM_ITEMS, dim=4))


@pytest.fixture(scope="module")
def unbroken():
    return fit_large(None)


def assert_same(one, two):
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_array_equal(left, right)
    for field in ("step", "loss", "recall"):
        np.testing.assert_array_equal(getattr(one.history, field), getattr(two.history, field))
    np.testing.assert_array_equal(one.best_step, two.best_step)
    np.testing.assert_array_equal(one.best_metric, two.best_metric)


@pytest.mark.slow
@pytest.mark.parametrize("kill_steps", [(25,), (15, 25)])
def test_killed_and_run_again_it_reaches_bit_equal_results(tmp_path, unbroken, kill_steps):
    assert 0 < unbroken.best_step[0] < 40, "the best are not the last"
    for kill_step in kill_steps:
        run_until_killed(fit_large, tmp_path, kill_step)
    steps = []
    out = fit_large(tmp_path, progress=lambda now: steps.append(now.step))
    assert steps[0] == 25, "training continued from a checkpoint"
    assert_same(out, unbroken)
    assert_same(fit_large(tmp_path, progress=lambda now: pytest.fail("a step was taken")), unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_training_without_keep_best_continues_in_either_type(tmp_path, dtype):
    options = {"keep_best": False, "table_dtype": dtype, "row_optimizer": embedding.adagrad(0.1, rowwise=True)}
    fit_large(tmp_path, max_steps=15, every=1, **options)
    assert_same(fit_large(tmp_path, **options), fit_large(None, **options))


@pytest.mark.slow
def test_the_best_parameters_may_be_kept_on_the_host(tmp_path, unbroken, monkeypatch):
    # As on a GPU, where there may be no memory for a copy of the tables.
    monkeypatch.setattr(platforms, "has_own_memory", lambda: True)
    fit_large(tmp_path, max_steps=20)
    out = fit_large(tmp_path)
    assert {type(leaf) for leaf in jax.tree.leaves(out.params)} == {np.ndarray}
    assert_same(out, unbroken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 32}, r"differs in batch_size \(64 there, 32 here\)"),
        ({"learning_rate": 0.1}, r"differs in optimizer \(\w{16} there"),
        ({"dim": 5}, "differs in model"),
        ({"data": (VALIDATION, VALIDATION)}, "differs in.*examples.*train"),
        ({"key": 1}, "differs in seeds"),
        ({"table_dtype": "bfloat16"}, r"differs in .*table_dtype \(float32 there, bfloat16 here\)"),
        ({"keep_best": False}, "differs in keep_best"),
        ({"loss": objectives.InBatchBPR(models.create("stamp", num_items=NUM_ITEMS, dim=4))}, "differs in loss"),
        ({"initial": initial_params(0)}, r"differs in initializer .*initial \(random there, \w{16} here\);"),
    ],
)
def test_the_folder_of_another_training_is_refused_with_the_difference(folder, change, message):
    with pytest.raises(ValueError, match=message):
        fit_large(folder, **change)


def test_other_initial_parameters_are_refused_and_equal_ones_are_not(tmp_path):
    fit_large(tmp_path, max_steps=5, initial=initial_params(0))
    fit_large(tmp_path, max_steps=5, initial=initial_params(0), progress=lambda now: pytest.fail("a step was taken"))
    with pytest.raises(ValueError, match=r"differs in initial \(\w{16} there, \w{16} here\);"):
        fit_large(tmp_path, initial=initial_params(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints")
    fit_large(path, max_steps=5)
    return path


@pytest.mark.slow
def test_each_of_several_seeds_equals_the_seed_alone(tmp_path, unbroken):
    reports = []
    both = fit_large(tmp_path, seeds=[3, 0], patience=3, progress=reports.append)
    alone = fit_large(None, patience=3)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(both.params)} == {2}
    assert {type(leaf) for leaf in jax.tree.leaves(both.params)} == {np.ndarray}
    for left, right in zip(jax.tree.leaves(both.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_array_equal(left[1], right)
        assert not np.array_equal(left[0], right)
    num_validations = len(alone.history.step)
    np.testing.assert_array_equal(both.history.loss[1, :num_validations], alone.history.loss[0])
    assert np.isnan(both.history.loss[1, num_validations:]).all()
    assert both.history.recall.shape == (2, len(both.history.step))
    np.testing.assert_array_equal(both.best_step[1:], alone.best_step)
    assert reports[0].active == 2
    assert np.isnan([now.recalls[1] for now in reports]).sum() == sum(~np.isnan(both.history.recall[0, 1:]))
    # A third seed is trained; the other two are restored from their folders.
    steps = []
    more = fit_large(tmp_path, seeds=[0, 3, 4], patience=3, progress=lambda now: steps.append(now.active))
    np.testing.assert_array_equal(
        more.params["params"]["input_embedding"][:2], both.params["params"]["input_embedding"][::-1]
    )
    assert set(steps) <= {0, 1}


def test_another_initializer_is_refused(folder, monkeypatch):
    monkeypatch.setattr(stamp, "small_normal_table", xavier_normal_table)
    with pytest.raises(ValueError, match=r"differs in initializer \(\w{16} there, \w{16} here\);"):
        fit_large(folder)
