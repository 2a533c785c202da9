"""Interrupted training continues to bit-equal results, and only from the folder of the same training run."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, training
from alkd_jax.training.loop import LearningCurves
from tests.helpers.cyclic_sessions import NUM_ITEMS
from tests.helpers.interrupted_training import fit, run_until_killed


@pytest.fixture(scope="module")
def unbroken():
    return fit(None)


def initial_params(seed):
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=6)
    return jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(seed), 2))


def extra_init(value, spread=1.0):
    """Returns an initializer of a further collection; the mean is an array in its closure."""
    mean = jnp.full(3, value, jnp.float32)
    return lambda key, model: {"extra": {"mean": mean + spread * jax.random.normal(key, (3,))}}


def assert_same(one, two):
    for left, right in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.history.step, two.history.step)
    np.testing.assert_array_equal(one.history.loss, two.history.loss)
    np.testing.assert_array_equal(one.history.recall, two.history.recall)
    np.testing.assert_array_equal(one.best_step, two.best_step)


def test_killed_twice_and_run_again_it_reaches_bit_equal_results(tmp_path, unbroken):
    for kill_step in (15, 30):
        run_until_killed(fit, tmp_path, kill_step)
    steps = []
    out = fit(tmp_path, progress=lambda now: steps.append(now.step))
    assert steps[0] > 5, "training continued from a checkpoint"
    assert_same(out, unbroken)


def test_interrupted_training_saves_its_state_and_continues_to_bit_equal_results(tmp_path, unbroken):
    asked = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, interrupted=lambda: next(asked))
    # The interval is 5 steps, and without the interruption the steps 10 and 20 are saved.
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["10", "15"]
    steps = []
    assert_same(fit(tmp_path, progress=lambda now: steps.append(now.step)), unbroken)
    assert steps[0] == 20


def test_finished_training_takes_no_more_steps(tmp_path, unbroken):
    fit(tmp_path)
    again = fit(tmp_path, progress=lambda now: pytest.fail("a step was taken"))
    assert_same(again, unbroken)


def test_curves_saved_in_the_background_are_copies():
    steps, rows = [0, 5], [np.zeros(2), np.ones(2)]
    saved = LearningCurves(steps, rows, list(rows)).as_lists()
    steps.append(10)
    rows.append(np.zeros(2))
    assert [len(curve) for curve in saved] == [2, 2, 2]


def test_finished_training_continues_with_a_larger_max_steps(tmp_path, unbroken):
    fit(tmp_path, max_steps=20)
    assert_same(fit(tmp_path), unbroken)


@pytest.mark.slow
def test_it_continues_with_another_number_of_devices(tmp_path, unbroken):
    run_until_killed(fit, tmp_path, 25, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert len(jax.devices()) == 1
    out = fit(tmp_path)
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
        (dict(initial=initial_params(0)), r"differs in initializer .*initial \(random there"),
        (dict(extra_params_init=extra_init(0)), "differs in .*optimizer.*initializer"),
    ],
)
def test_the_folder_of_another_training_is_refused_with_the_difference(tmp_path, change, message):
    fit(tmp_path, max_steps=10)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, **change)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        (
            dict(initial=initial_params(0)),
            dict(initial=initial_params(1)),
            r"differs in initial \(\w{16} there, \w{16} here\);",
        ),
        (
            dict(extra_params_init=extra_init(0)),
            dict(extra_params_init=extra_init(1)),
            r"differs in initializer \(\w{16} there, \w{16} here\);",
        ),
        (
            dict(extra_params_init=extra_init(0)),
            dict(extra_params_init=extra_init(0, 0.5)),
            r"differs in initializer \(\w{16} there, \w{16} here\);",
        ),
    ],
)
def test_other_initial_values_are_refused_and_equal_ones_are_not(tmp_path, options, change, message):
    fit(tmp_path, max_steps=10, **options)
    # Equal values in new arrays, and another function object with the same computation.
    name, value = next(iter(options.items()))
    again = {name: extra_init(0)} if name == "extra_params_init" else {name: jax.tree.map(np.array, value)}
    fit(tmp_path, max_steps=10, progress=lambda now: pytest.fail("a step was taken"), **again)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, **change)


def test_initial_values_that_differ_by_rounding_are_the_same_training(tmp_path, unbroken, monkeypatch):
    """As on a mesh, where another program initializes them."""
    fit(tmp_path, max_steps=20)
    module = importlib.import_module("alkd_jax.training.initial")
    init_seeds = module._init_seeds

    def init_with_other_rounding(*arguments, **options):
        return jax.tree.map(lambda leaf: jnp.nextafter(leaf, jnp.float32(1)), init_seeds(*arguments, **options))

    monkeypatch.setattr(module, "_init_seeds", init_with_other_rounding)
    steps = []
    assert_same(fit(tmp_path, progress=lambda now: steps.append(now.step)), unbroken)
    assert steps[0] == 25


def test_another_random_number_generator_is_another_training(tmp_path):
    fit(tmp_path, max_steps=5)
    with jax.threefry_partitionable(False), pytest.raises(ValueError, match="differs in seeds"):
        fit(tmp_path)


def test_versions_are_recorded_and_another_version_of_jax_is_the_same_training(tmp_path, unbroken):
    fit(tmp_path, max_steps=10)
    file = tmp_path / "fingerprint.json"
    record = json.loads(file.read_text())
    assert record["versions"]["jax"] == jax.__version__
    assert "FPMC" in record["model"]
    record["versions"]["jax"] = "0.0.1"
    record |= dict.fromkeys(("loss", "initializer", "optimizer"), "another digest")
    file.write_text(json.dumps(record))
    assert_same(fit(tmp_path), unbroken)


def test_a_folder_without_a_fingerprint_or_with_a_damaged_one_is_refused(tmp_path):
    fit(tmp_path, max_steps=10)
    file = tmp_path / "fingerprint.json"
    file.write_text("{")
    with pytest.raises(ValueError, match=r"fingerprint.json:1: "):
        fit(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=r"holds checkpoints without fingerprint.json"):
        fit(tmp_path)


def test_a_folder_of_an_earlier_version_is_refused_and_left_alone(tmp_path):
    fit(tmp_path, max_steps=10)
    (tmp_path / "fingerprint.json").rename(tmp_path / "identity.json")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match=r"another version of alkd_jax began; choose another folder, or remove this one"
    ):
        fit(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_each_validation_is_logged_once(tmp_path):
    for most in (10, 40):
        out = fit(None, max_steps=most, trackers=[training.JsonLines(tmp_path / "log")])
    with (tmp_path / "log" / "curves.jsonl").open("a") as lines:
        lines.write('{"step": 45, "lo')
    fit(tmp_path / "kept", max_steps=40, trackers=[training.JsonLines(tmp_path / "log")])
    lines = [json.loads(line) for line in (tmp_path / "log" / "curves.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == out.history.step[1:].tolist()
    np.testing.assert_allclose(np.array([line["recall"] for line in lines]).T, out.history.recall[:, 1:])
