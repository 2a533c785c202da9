"""Compiles cases for the targets of one platform and prints a JSON line for each; started by `benchmarks.accelerators`.

    python -m benchmarks.aot.worker '{"pairs": [["v5e", "game:N=1e4"]], "texts": null}'

The process needs the environment of `targets.ENVIRONMENT`. Before each case it prints a line with "begins", so that the
process that started it knows which case ended it, if a compiler aborts.
"""

import json
import pathlib
import re
import sys
import time
from typing import Any

from .abstract import Program
from .account import account, as_json
from .cases import Case, parse_case
from .compiled_text import CompiledText
from .programs import build
from .targets import TARGETS, Target, versions


def compile_case(case: Case, target: Target, texts: pathlib.Path | None) -> dict[str, Any]:
    """Compiles a case and returns what `benchmarks.accelerators` documents.

    Args:
        case: the program and its sizes.
        target: the accelerator.
        texts: folder for the compiled text; None to keep none.
    """
    record: dict[str, Any] = {"case": str(case), "target": target.name, "compiled": False, "error": None}
    record |= {"versions": versions()}
    start = time.perf_counter()
    try:
        program = build(case, target)
        lowered = program.lower()
        record["lower_s"] = time.perf_counter() - start
        start = time.perf_counter()
        compiled = lowered.compile()
    except Exception as error:
        # A compiler reports its refusals by exceptions of many types, and a report must hold them all.
        return record | {"error": f"{type(error).__name__}: {error}"[:2000], "why": {"compiled": "see error"}}
    record |= {"compiled": True, "compile_s": time.perf_counter() - start}
    text = compiled.as_text()
    if texts is not None:
        texts.mkdir(parents=True, exist_ok=True)
        file = texts / f"{target.name}-{re.sub(r'[^A-Za-z0-9]+', '-', str(case)).strip('-')}.txt"
        file.write_text(text)
        record["text"] = file.name
    return record | _memory(compiled) | _costs(program, CompiledText.parse(text), target)


def _memory(compiled: Any) -> dict[str, int]:
    """The compiler's plan of a call's memory."""
    memory = compiled.memory_analysis()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
    }


def _costs(program: Program, text: CompiledText, target: Target) -> dict[str, Any]:
    """The account of the text; where the host calls the program several times, estimates are those of all calls."""
    result = account(text, target, table_bytes=program.table_bytes, steps=program.steps)
    fields = as_json(result, target)
    for name in ("estimated_us", "pessimistic_us"):
        if fields[name] is not None:
            fields[name] *= program.calls
            fields[f"{name}_per_step"] = fields[name] / program.steps if program.steps else None
    fields |= {"calls": program.calls, "steps": program.steps, "table_bytes": program.table_bytes}
    fields["ideal_bytes"] = program.ideal_bytes
    if program.ideal_bytes is not None:
        fields["ideal_us"] = 1e6 * program.ideal_bytes / target.bandwidth
        if fields["estimated_us"]:
            fields["share_of_roofline"] = fields["ideal_us"] / fields["estimated_us"]
    return fields


def main(order: str) -> None:
    """Compiles the cases of a JSON object: "pairs" of target and case, and the folder "texts" or null."""
    request = json.loads(order)
    texts = None if request["texts"] is None else pathlib.Path(request["texts"])
    for name, text in request["pairs"]:
        print(json.dumps({"begins": [name, text]}), flush=True)
        print(json.dumps(compile_case(parse_case(text), TARGETS[name], texts)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
