"""Trackers: what each of them sends to its package, and packages that are missing."""

import json
import math
import sys

import pytest

from alkd_jax.training import trackers

PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboardX"}
METRICS = {"loss": [0.5, math.nan], "recall": [0.25, math.nan], "sessions_per_second": math.nan}


def test_json_lines_hold_null_for_seeds_that_have_stopped(tmp_path):
    tracker = trackers.JsonLines(tmp_path / "new" / "folder")
    tracker.log(20, METRICS)
    line = json.loads(tracker.path.read_text())
    assert line == {"step": 20, "loss": [0.5, None], "recall": [0.25, None], "sessions_per_second": None}


class Calls:
    """A stand-in for a package: attributes are callables that record their arguments and return another of its kind."""

    def __init__(self, calls, name=""):
        self._calls, self._name = calls, name

    def __getattr__(self, name):
        return Calls(self._calls, f"{self._name}.{name}".strip("."))

    def __call__(self, *args, **options):
        self._calls.append((self._name, args, options))
        return self


@pytest.mark.parametrize(
    ("kind", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboardX")]
)
def test_a_tracker_sends_numbers_that_are_known_under_a_name_each(kind, module, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setitem(sys.modules, module, Calls(calls))
    tracker = trackers.make_tracker(kind, "ml teacher", tmp_path / "folder", {"seeds": 2})
    before = len(calls)
    tracker.log(20, METRICS)
    tracker.finish()
    arguments = [argument for _, args, _ in calls[before:] for argument in args]
    numbers = [value for each in arguments for value in (each.values() if isinstance(each, dict) else [each])]
    assert {0.5, 0.25} <= {number for number in numbers if isinstance(number, float)}
    assert not any(isinstance(number, float) and math.isnan(number) for number in numbers)
    assert any("seed 0" in str(args) for _, args, _ in calls[before:])
    assert "ml teacher" in str(calls) or kind == "tensorboard"
    assert any(name.endswith(("finish", "close", "set_terminated")) for name, _, _ in calls)


@pytest.mark.parametrize(
    ("kind", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboardX")]
)
def test_a_missing_package_is_named_with_what_to_install(kind, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"the package {module} is not installed; install it with: pip install 'alkd_jax\[{kind}\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        trackers.make_tracker(kind, "run", tmp_path, {})


def test_an_unknown_tracker_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tracker is 'comet'; expected 'wandb' or 'mlflow' or 'tensorboard'"):
        trackers.make_tracker("comet", "run", tmp_path, {})
