"""What the compiler of a TPU makes of programs that change a few rows of large item tables."""

import pytest

from benchmarks import accelerators
from benchmarks.aot import targets

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        targets.missing_compiler("tpu") is not None,
        reason="the compiler of TPUs is not installed (extra aot-tpu-gpu)",
    ),
]

UPDATES = tuple(
    f"update:optimizer={optimizer},V=1e7,D={dim},dtype={dtype}"
    for optimizer, dim, dtype in (
        ("adam", 64, "bfloat16"),
        ("adam", 10, "float32"),
        ("adagrad", 64, "float32"),
        ("rowwise_adagrad", 100, "float32"),
        ("sgd", 64, "float32"),
    )
)


def compiled(*cases):
    records = accelerators.run(accelerators.Accelerators(targets="v5e", cases=cases))
    assert all(record["compiled"] for record in records), [record["error"] for record in records]
    return records


def test_an_update_copies_no_table_and_takes_its_place():
    for record in compiled(*UPDATES):
        assert record["table_copies"] == 0, record["case"]
        assert record["alias_bytes"] > 0.99 * record["output_bytes"], record["case"]
        assert record["temp_bytes"] < 4 * 2**20, record["case"]


def test_adam_with_ten_million_items_fits_the_smallest_tpu():
    """Tables in bfloat16 and moments in float32 take 12.8 GB of its 15.75 GiB."""
    case = "fit_large:optimizer=adam,V=1e7,D=64,dtype=bfloat16"
    step, init, validation = compiled(case, f"{case},part=init", f"{case},part=validation")
    assert step["table_copies"] == init["table_copies"] == validation["table_copies"] == 0
    assert step["alias_bytes"] > 0.99 * step["output_bytes"]
    for record in (step, validation):
        assert record["argument_bytes"] + record["temp_bytes"] < 15.75 * 2**30
    assert init["temp_bytes"] < 2**24
