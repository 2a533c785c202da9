"""Compiles the public programs for TPUs and GPUs that need not be there, and says what their compilers say.

    python -m benchmarks.accelerators --targets v5e,h200 --cases top_k:V=1e5,B=256,k=100,D=64 --json FILE --texts DIR

Needs `pip install 'alkd_jax[aot-tpu-gpu]'`. Without `--cases` every program is compiled, which takes about half an
hour. A JSON line a case holds:

* case, target, versions; compiled, or error with the compiler's message; lower_s and compile_s;
* argument_bytes, output_bytes, alias_bytes (outputs that take the place of arguments), temp_bytes; table_bytes, the
  size of an item table; ideal_bytes and ideal_us, what a call must move and how long the memory takes for it;
* kernels_per_step: device operations that a step launches (GPU), or a call where there is no loop over steps;
* longest_loop_trips; table_copies a call, and table_copies_in_loops; largest_collective_bytes;
* estimated_us: the compiler's cycles at the target's clock (TPU), without the operations in uncosted, [[op, shape,
  calls]]; pessimistic_us: with these at the rates that `benchmarks.aot.account` states;
* sorted_elements: numbers that enter a sort or TopK in a call;
* text: the file of the compiled text under --texts. A field is null only where "why" says why.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .aot.cases import Case, default_cases, parse_case
from .aot.targets import PLATFORMS, TARGETS, compiler_environment, missing_compiler
from .command_line import run_command


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """Options of this command.

    Attributes:
        targets: accelerators to compile for, separated by commas: v5e, v5p, v6e, h100, h200.
        cases: programs and their sizes, such as ranks:V=1e6,B=512,D=64; by default all.
        json: file to which one JSON line per case and target is appended.
        texts: folder for the compiled texts, one file a case.
    """

    targets: str = "v5e,h100"
    cases: tuple[str, ...] = ()
    json: pathlib.Path | None = None
    texts: pathlib.Path | None = None


def run(args: Accelerators) -> list[dict[str, Any]]:
    """Compiles the cases, prints a line for each, and returns the records.

    Raises:
        ValueError: a target or a case is unknown, or a compiler is missing.
    """
    names = [name for name in args.targets.split(",") if name]
    if unknown := [name for name in names if name not in TARGETS]:
        raise ValueError(f"--targets has {unknown[0]!r}; expected some of {', '.join(TARGETS)}")
    cases = [parse_case(text) for text in args.cases] or default_cases()
    records = []
    for platform in PLATFORMS:
        chosen = [name for name in names if TARGETS[name].platform == platform]
        if chosen and (reason := missing_compiler(platform)):
            raise ValueError(reason)
        for record in _compile_all([(name, case) for case in cases for name in chosen], args.texts):
            records.append(record)
            print(summary(record), flush=True)
            if args.json is not None:
                with args.json.open("a") as lines:
                    lines.write(json.dumps(record) + "\n")
    return records


def _compile_all(pairs: Sequence[tuple[str, Case]], texts: pathlib.Path | None) -> Iterator[dict[str, Any]]:
    """Yields the records of cases that a process of their own compiles; after an abort another one goes on."""
    left = [(name, str(case)) for name, case in pairs]
    while left:
        order = json.dumps({"pairs": left, "texts": None if texts is None else str(texts)})
        command = [sys.executable, "-m", f"{__package__}.aot.worker", order]
        process = subprocess.Popen(
            command, env=compiler_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line) if line.startswith("{") else {}
            if "case" in message:
                left.pop(0)
                yield message
        _, errors = process.communicate()
        if left:
            name, case = left.pop(0)
            last = errors.strip().splitlines()[-1:] or ["no message"]
            error = f"the compiler's process ended with code {process.returncode}: {last[0][:500]}"
            yield {"case": case, "target": name, "compiled": False, "error": error, "why": {"compiled": "see error"}}


def summary(record: dict[str, Any]) -> str:
    """Returns one line for the terminal.

    Args:
        record: of a case.
    """
    head = f"{record['target']:5} {record['case']}"
    if not record["compiled"]:
        return f"{head}: {record['error'].splitlines()[0][:160]}"
    parts = [f"compiled in {record['compile_s']:.0f} s", f"temporaries {record['temp_bytes'] / 2**20:,.1f} MiB"]
    if record["kernels_per_step"] is not None:
        parts.append(f"{record['kernels_per_step']:,} kernels a {'step' if record['steps'] else 'call'}")
    if record["estimated_us"] is not None:
        steps = record["steps"] or 1
        unit = "a step" if record["steps"] else "a call"
        parts.append(f"{record['estimated_us'] / steps:,.1f} us {unit}")
        parts.append(f"{record['pessimistic_us'] / steps:,.1f} us pessimistic")
    trips = record["longest_loop_trips"]
    parts.append("a loop of unknown length" if trips is None else f"longest loop {trips:,}")
    if record["table_copies"]:
        parts.append(f"{record['table_copies']} copies of a table, {record['table_copies_in_loops']} in loops")
    if record["largest_collective_bytes"]:
        parts.append(f"largest collective {record['largest_collective_bytes'] / 2**20:,.2f} MiB")
    return f"{head}: {', '.join(parts)}"


if __name__ == "__main__":
    run_command(run, Accelerators, "accelerators", __doc__)
