"""What a user or damage writes into `tuning.json` and `config.json` is used as it stands, or named with its place."""

import copy
import json
import random

import pytest

from experiments.pipeline.methods import METHODS
from experiments.pipeline.run import stored_settings
from experiments.pipeline.tuning_file import TUNING_FILE, read_tuning

TRIALS = [
    {"options": {"weight": 0.001}, "recall@10": 0.02},
    {"options": {"weight": 1e-05}, "recall@10": 0.03},
    {"options": {"weight": 1}, "recall@10": 0.03},
]
TUNED = {
    "FTD": {"chosen": {"weight": 1e-05}, "trials": TRIALS, "seeds": 2, "max_steps": 2000},
    "DE": {"chosen": {"num_experts": 10, "weight": 0.5}, "from": "ML fpmc"},
    "Tuned ALKDRec": {"chosen": {"learning_rate_scale": 3, "bounds": [10, 25]}, "from": "by hand"},
    "my.part:distill": {"chosen": {"depth": 3}, "from": "me"},
}


def read(folder, tuning):
    (folder / TUNING_FILE).write_text(json.dumps(tuning))
    return read_tuning(folder)


def test_what_tuning_or_a_hand_writes_is_read(tmp_path):
    assert read_tuning(tmp_path) == {}
    assert read(tmp_path, TUNED) == TUNED


def test_every_point_of_every_grid_is_in_range():
    for method in METHODS.values():
        for name, values in method.grid.items():
            for value in values:
                method.check({name: value})


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        (
            "FTD",
            {"chosen": {"weight": 1e-06}},
            "chosen is {'weight': 1e-06}; expected {'weight': 1e-05}",
        ),
        ("FTD", {"trials": []}, "expected what experiments.tune writes"),
        ("FTD", {"trials": [{"options": {"weight": 1e-05}, "recall@10": 3}]}, "has the trial .*; expected its options"),
        ("FTD", {"seeds": None}, "expected what experiments.tune writes"),
        ("DE", {"chosen": {"weight": -0.5}}, "weight is -0.5; expected a finite number, at least 0"),
        ("DE", {"chosen": {"weight": "0.5"}}, "weight is '0.5'; expected a value such as 0.01"),
        ("DE", {"chosen": {"weight": float("nan")}}, "weight is nan; expected a value such as 0.01"),
        ("DE", {"chosen": {"num_experts": 10.5}}, "num_experts is 10.5; expected a value such as 30"),
        ("DE", {"chosen": {"num_experts": True}}, "num_experts is True; expected a value such as 30"),
        ("DE", {"chosen": {"num_experts": 0}}, "num_experts is 0; expected at least 1"),
        ("DE", {"chosen": {"topology": 0.5}}, "has an option 'topology'; expected weight, num_experts"),
        ("DE", {"chosen": [1]}, "expected what experiments.tune writes"),
        ("Tuned ALKDRec", {"chosen": {"bounds": [25, 10]}}, "bounds is .*; expected rising positions from 1"),
        ("Tuned ALKDRec", {"chosen": {"bounds": "25"}}, "bounds is '25'; expected a value such as"),
        ("Tuned ALKDRec", {"chosen": {"learning_rate_scale": -1}}, "learning_rate_scale is -1.0; expected from 0"),
        ("ALKDRec", {"chosen": {"weight": 1.0}, "from": "me"}, "has an option 'weight'; expected none"),
        ("Distil", {"chosen": {}, "from": "me"}, "is no method; expected one of"),
    ],
)
def test_what_no_tuning_writes_is_named(tmp_path, method, change, message):
    tuning = copy.deepcopy(TUNED)
    tuning[method] = tuning.get(method, {}) | change
    with pytest.raises(ValueError, match=rf"tuning\.json: '{method}'.*{message}") as caught:
        read(tmp_path, tuning)
    assert str(caught.value).isprintable()


CONFIG = {"data": "synthetic", "backbone": "fpmc", "selection": "own", "seeds": 2, "accuracy": 0.5, "ratios": [1, 5, 4]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": "2"}, "'seeds' is '2'; expected int"),
        ({"seeds": True}, "'seeds' is True; expected int"),
        ({"seeds": 2.0}, "'seeds' is 2.0; expected int"),
        ({"budget": [3]}, r"'budget' is \[3\]; expected int | None"),
        ({"ratios": [1, 5]}, r"'ratios' is \[1, 5\]; expected tuple\[int, int, int\]"),
        ({"accuracy": float("nan")}, "'accuracy' is nan; expected float"),
        ({"accuracy": 5}, "--accuracy is 5; expected from 0 to 1"),
        ({"data": None}, "'data' is None; expected str"),
        ({"rankings": 3}, "'rankings' is 3; expected"),
    ],
)
def test_settings_of_another_type_are_named(tmp_path, change, message):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert stored_settings(tmp_path).ratios == (1, 5, 4)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(ValueError, match=message):
        stored_settings(tmp_path)


BYTES = (b"", b"9", b"-", b"]", b'"', b"\xff", b"e", b"{")


def test_damaged_bytes_are_read_or_named(tmp_path):
    draw = random.Random(0)
    for name, value, load in (("config.json", CONFIG, stored_settings), (TUNING_FILE, TUNED, read_tuning)):
        for _ in range(60):
            content = bytearray(json.dumps(value, indent=1).encode())
            for _ in range(draw.randrange(1, 4)):
                place = draw.randrange(len(content))
                content[place : place + draw.randrange(2)] = draw.choice(BYTES)
            (tmp_path / name).write_bytes(content)
            try:
                load(tmp_path)
            except ValueError as error:
                assert str(error).isprintable()  # noqa: PT017
