import json
import stat
import sys

import pytest

from benchmarks import accelerators
from benchmarks.aot import targets
from benchmarks.aot.cases import default_cases

needs_compilers = pytest.mark.skipif(
    any(targets.missing_compiler(platform) for platform in targets.PLATFORMS),
    reason="the compilers of TPU and GPU are not installed (extra aot-tpu-gpu)",
)
RECORD = {
    "case": "ranks:V=10,B=2,D=64",
    "target": "v5e",
    "compiled": True,
    "compile_s": 3.0,
    "temp_bytes": 2**20,
    "kernels_per_step": None,
    "steps": 20,
    "estimated_us": 40.0,
    "pessimistic_us": 60.0,
    "longest_loop_trips": None,
    "table_copies": 2,
    "table_copies_in_loops": 1,
    "largest_collective_bytes": 2**21,
}


def test_a_line_says_what_a_step_costs():
    line = accelerators.summary(RECORD)
    for part in ("compiled in 3 s", "2.0 us a step", "3.0 us pessimistic", "unknown length", "2.00 MiB"):
        assert part in line
    assert "ended" in accelerators.summary(RECORD | {"compiled": False, "error": "the process ended\nhere"})


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match=r"--targets has 'v9'; expected some of v5e, v5p, v6e, h100, h200"):
        accelerators.run(accelerators.Accelerators(targets="v9"))


def test_a_missing_compiler_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(targets, "_version", lambda package: None)
    with pytest.raises(ValueError, match=r"no compiler for tpu is installed; expected pip install"):
        accelerators.run(accelerators.Accelerators(targets="v5e", cases=("game:N=10",)))


def test_after_a_compiler_that_aborts_the_other_cases_are_compiled(tmp_path, monkeypatch):
    worker = tmp_path / "worker"
    worker.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "for name, case in json.loads(sys.argv[3])['pairs']:\n"
        "    if 'N=2' in case:\n"
        "        print('check failed', file=sys.stderr)\n"
        "        sys.exit(6)\n"
        "    print(json.dumps({'case': case, 'target': name, 'compiled': True}), flush=True)\n"
    )
    worker.chmod(worker.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(accelerators.sys, "executable", str(worker))
    pairs = [("v5e", accelerators.parse_case(f"game:N={n}")) for n in (1, 2, 3)]
    records = list(accelerators._compile_all(pairs, None))
    assert [record["case"] for record in records] == ["game:N=1", "game:N=2", "game:N=3"]
    assert [record["compiled"] for record in records] == [True, False, True]
    assert records[1]["error"] == "the compiler's process ended with code 6: check failed"


@needs_compilers
@pytest.mark.slow
def test_every_public_program_compiles_within_its_bounds(tmp_path):
    """Compiles all programs for the smallest TPU and the H100; every field is there or says why it is not."""
    args = accelerators.Accelerators(targets="v5e,h100", json=tmp_path / "out.jsonl", texts=tmp_path / "texts")
    records = accelerators.run(args)
    assert len(records) == 2 * len(default_cases())
    assert [json.loads(line) for line in args.json.read_text().splitlines()] == records
    faults = []
    for record in records:
        name = f"{record['target']} {record['case']}"
        if not record["compiled"]:
            faults.append(f"{name}: {record['error']}")
            continue
        assert {field for field, value in record.items() if value is None} <= {*record["why"], "steps", "error"} | {
            "ideal_bytes",
            "estimated_us_per_step",
            "pessimistic_us_per_step",
        }
        assert (args.texts / record["text"]).read_text()
        kind = record["case"].partition(":")[0]
        if "game" not in kind and (record["longest_loop_trips"] or 0) > 1000:
            faults.append(f"{name}: a loop of {record['longest_loop_trips']} trips")
        if kind == "sharded" and record["largest_collective_bytes"] >= record["table_bytes"] / 4:
            faults.append(f"{name}: a collective of {record['largest_collective_bytes']} bytes")
        if kind == "fit_large" and record["table_copies"] and "init" not in record["case"]:
            faults.append(f"{name}: {record['table_copies']} copies of a table a call")
    assert not faults, "\n".join(faults)
