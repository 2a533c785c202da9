"""Training that is cut off goes on to the very bits it would have reached, and only its own folder is taken up."""

import importlib
import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, training
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.fit import _as_lists
from tests.helpers import paths
from tests.training.fit_test import NUM_ITEMS, OPTIONS, chain_sessions

TRAINER = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.training.resume_test import trained
folder, die_at = pathlib.Path(sys.argv[2]), int(sys.argv[3])
def killed(now):
    if now.step >= die_at:
        os.kill(os.getpid(), signal.SIGKILL)
trained(folder, progress=killed)
"""


def trained(folder, *, key=0, patience=100, learning_rate=0.05, dim=6, train_seed=0, **options):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=dim)
    every = OPTIONS | {"max_steps": 40, "patience": patience, "learning_rate": learning_rate}
    return training.fit(
        jax.random.key(key),
        model,
        chain_sessions(300, 0, train_seed),
        chain_sessions(90, 300, 1),
        seeds=2,
        checkpoints=None if folder is None else TrainingFolder(folder, every=2),
        **(every | options),
    )


@pytest.fixture(scope="module")
def unbroken():
    return trained(None)


def given(seed):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=6)
    return jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(seed), 2))


def further(value, spread=1.0):
    """Draws a collection beside the model's; its mean is an array it brings along."""
    mean = jnp.full(3, value, jnp.float32)
    return lambda key, model: {"further": {"mean": mean + spread * jax.random.normal(key, (3,))}}


def assert_same(one, two):
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.history.step, two.history.step)
    np.testing.assert_array_equal(one.history.loss, two.history.loss)
    np.testing.assert_array_equal(one.history.recall, two.history.recall)
    np.testing.assert_array_equal(one.best_step, two.best_step)


def run_elsewhere(folder, die_at, **environment):
    arguments = [sys.executable, "-c", TRAINER, str(paths.ROOT), str(folder), str(die_at)]
    return subprocess.run(arguments, env=os.environ | environment, capture_output=True, text=True, timeout=1200)


def test_killed_twice_and_run_again_it_reaches_the_same_bits(tmp_path, unbroken):
    for die_at in (15, 30):
        assert run_elsewhere(tmp_path, die_at).returncode == -signal.SIGKILL
    seen = []
    out = trained(tmp_path, progress=lambda now: seen.append(now.step))
    assert seen[0] > 5, "it went on from a checkpoint"
    assert_same(out, unbroken)


def test_finished_training_is_not_done_again(tmp_path, unbroken):
    trained(tmp_path)
    again = trained(tmp_path, progress=lambda now: pytest.fail("a step was taken"))
    assert_same(again, unbroken)


def test_what_is_handed_to_the_background_does_not_grow_afterwards():
    steps, rows = [0, 5], [np.zeros(2), np.ones(2)]
    handed = _as_lists(steps, rows, rows)
    steps.append(10)
    rows.append(np.zeros(2))
    assert [len(curve) for curve in handed] == [2, 2, 2]


def test_stopped_training_can_be_given_more_steps(tmp_path, unbroken):
    trained(tmp_path, max_steps=20)
    assert_same(trained(tmp_path), unbroken)


def test_it_goes_on_under_another_number_of_devices(tmp_path, unbroken):
    cut_off = run_elsewhere(tmp_path, 25, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert cut_off.returncode == -signal.SIGKILL, cut_off.stderr
    assert len(jax.devices()) == 1
    out = trained(tmp_path)
    np.testing.assert_array_equal(out.history.step, unbroken.history.step)
    np.testing.assert_allclose(out.history.loss, unbroken.history.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batch_size=32), r"differs in batch_size \(64 there, 32 here\)"),
        (dict(learning_rate=0.01), r"differs in optimizer"),
        (dict(dim=5), "differs in model"),
        (dict(train_seed=7), "examples.*train"),
        (dict(key=1), "differs in seeds"),
        (dict(targets="all"), "differs in.*examples"),
        (dict(initial=given(0)), r"differs in draws .*initial \(drawn there"),
        (dict(extra=further(0)), "differs in .*optimizer.*draws"),
    ],
)
def test_another_training_is_refused_with_the_difference_named(tmp_path, change, message):
    trained(tmp_path, max_steps=10)
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, **change)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (dict(initial=given(0)), dict(initial=given(1)), r"differs in initial \(\w{16} there, \w{16} here\);"),
        (dict(extra=further(0)), dict(extra=further(1)), r"differs in draws \(\w{16} there, \w{16} here\);"),
        (dict(extra=further(0)), dict(extra=further(0, 0.5)), r"differs in draws \(\w{16} there, \w{16} here\);"),
    ],
)
def test_another_beginning_is_refused_and_the_same_is_not(tmp_path, options, change, message):
    trained(tmp_path, max_steps=10, **options)
    # Made again: the same values, and a function that is another object but draws the same.
    name, value = next(iter(options.items()))
    again = {name: further(0)} if name == "extra" else {name: jax.tree.map(np.array, value)}
    trained(tmp_path, max_steps=10, progress=lambda now: pytest.fail("a step was taken"), **again)
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, **change)


def test_initial_values_drawn_a_bit_differently_are_no_other_training(tmp_path, unbroken, monkeypatch):
    """As on a mesh, where another program draws them."""
    trained(tmp_path, max_steps=20)
    module = importlib.import_module("alkd_jax.training.fit")
    draw = module._draw

    def a_bit_differently(*arguments, **options):
        return jax.tree.map(lambda leaf: jnp.nextafter(leaf, jnp.float32(1)), draw(*arguments, **options))

    monkeypatch.setattr(module, "_draw", a_bit_differently)
    steps = []
    assert_same(trained(tmp_path, progress=lambda now: steps.append(now.step)), unbroken)
    assert steps[0] == 25


def test_random_numbers_made_another_way_are_another_training(tmp_path):
    trained(tmp_path, max_steps=5)
    with jax.threefry_partitionable(False), pytest.raises(ValueError, match="differs in seeds"):
        trained(tmp_path)


def test_versions_lie_beside_and_another_version_is_no_other_training(tmp_path, unbroken):
    trained(tmp_path, max_steps=10)
    file = tmp_path / "identity.json"
    record = json.loads(file.read_text())
    assert record["versions"]["jax"] == jax.__version__
    assert "FPMC" in record["model"]
    record["versions"]["jax"] = "0.0.1"
    record |= dict.fromkeys(("loss", "draws", "optimizer"), "as that version wrote it")
    file.write_text(json.dumps(record))
    assert_same(trained(tmp_path), unbroken)


def test_a_folder_without_or_with_a_broken_record_is_refused(tmp_path):
    trained(tmp_path, max_steps=10)
    file = tmp_path / "identity.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"identity.json is no record"):
        trained(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"holds checkpoints but no identity.json"):
        trained(tmp_path)


def test_curves_are_written_as_they_grow_and_not_twice(tmp_path):
    for most in (10, 40):
        with training.curve_log(tmp_path / "log") as log:
            out = trained(None, max_steps=most, progress=log)
    with (tmp_path / "log" / "curves.jsonl").open("a") as lines:
        lines.write('{"step": 45, "lo')
    with training.curve_log(tmp_path / "log") as log:
        trained(tmp_path / "kept", max_steps=40, progress=log)
    lines = [json.loads(line) for line in (tmp_path / "log" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == out.history.step[1:].tolist()
    np.testing.assert_allclose(np.array([line["recall"] for line in lines]).T, out.history.recall[:, 1:])
