"""What a GPU or TPU computes and how fast: checks against NumPy, then a number for each program, within some minutes.

    python -m benchmarks.device --minutes 8 --json FILE

It needs the package only. The checks come first: vectors, scores and ranks against NumPy, ties of the best items,
gradients, accelerator steps against plain ones, and training that continues. Then each program is compiled, timed, and
set beside what its compiled text says: a TPU's estimate, a GPU's number of kernels, and the time that the memory
takes for what a call must move. The file holds a JSON object that is replaced after each part, so that a run that is
ended leaves what it found; the parts for which no time was left are listed.
"""

import dataclasses
import os
import pathlib
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from alkd_jax.io import write_json

from . import device_checks, device_programs
from .command_line import run_command
from .harness import machine, peak_mib


@dataclasses.dataclass(frozen=True)
class Device:
    """Options of this command.

    Attributes:
        json: file of the results.
        minutes: the command ends after this time.
        smoke: use tiny sizes, which only show that the command still runs.
        profile: folder for a profile of the programs, which TensorBoard and XProf show; by default none is made.
    """

    json: pathlib.Path = pathlib.Path("device.json")
    minutes: float = 8.0
    smoke: bool = False
    profile: pathlib.Path | None = None


@dataclasses.dataclass
class Report:
    """The results so far, in a file that is always whole.

    Attributes:
        path: the file.
        content: what it holds.
    """

    path: pathlib.Path
    content: dict[str, Any]

    def add(self, kind: str, name: str, result: dict[str, Any]) -> None:
        """Adds the result of a part, with the time it took, and replaces the file."""
        self.content["left_out"].remove(name)
        self.content[kind].append({"name": name, **result})
        # The programs that are slowest beside what they should take come first.
        self.content["programs"].sort(key=lambda program: -(program.get("gap") or 0.0))
        write_json(self.path, self.content)
        print(f"{name}: {_line(result)}", flush=True)

    @property
    def failed(self) -> list[str]:
        """The checks that failed, and the programs that did not run."""
        parts = self.content["checks"] + self.content["programs"]
        return [part["name"] for part in parts if not part["passed"]]


def run(args: Device) -> dict[str, Any]:
    """Runs the parts while there is time, and returns the report.

    Raises:
        ValueError: there is no time.
    """
    if not args.minutes > 0:
        raise ValueError(f"minutes is {args.minutes}; expected a positive number")
    deadline = time.monotonic() + 60 * args.minutes
    checks, programs = device_checks.parts(smoke=args.smoke), device_programs.parts(smoke=args.smoke)
    head = machine() | {"minutes": args.minutes, "smoke": args.smoke}
    report = Report(args.json, {**head, "checks": [], "programs": [], "left_out": [*checks, *programs]})
    write_json(report.path, report.content)
    watchdog = threading.Timer(60 * args.minutes, _stop, [report])
    watchdog.daemon = True
    watchdog.start()
    try:
        for kind, parts in (("checks", checks), ("programs", programs)):
            for name, part in parts.items():
                if time.monotonic() < deadline:
                    report.add(kind, name, _result_of(part))
    finally:
        watchdog.cancel()
    print(_summary(report), flush=True)
    return report.content


def _result_of(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of a part, or the error that ended it; the next one runs all the same."""
    start = time.monotonic()
    try:
        result = {"passed": True, **part()}
    except Exception as error:
        # A device fails in many ways, and the report must hold them all.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{pathlib.Path(where.filename).name}:{where.lineno}"
        result = {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000], "at": place}
    return result | {"seconds": time.monotonic() - start, "peak_memory_mib": peak_mib()}


def _stop(report: Report) -> None:
    """Ends the process at the end of its time, whatever it is doing: the compiler cannot be interrupted."""
    print(f"the time is over\n{_summary(report)}", file=sys.stderr, flush=True)
    os._exit(1 if report.failed else 0)


def _summary(report: Report) -> str:
    """The checks that failed, the widest gaps and what was left out."""
    gaps = [f"  {p['name']}: {p['gap']:.1f} times {p['beside']}" for p in report.content["programs"] if p.get("gap")]
    lines = [f"failed: {', '.join(report.failed) or 'nothing'}", "widest gaps:", *gaps[:10]]
    if report.content["left_out"]:
        lines.append(f"no time was left for {', '.join(report.content['left_out'])}")
    return "\n".join([*lines, str(report.path)])


def _line(result: dict[str, Any]) -> str:
    shown = {key: value for key, value in result.items() if isinstance(value, int | float | str) and key != "passed"}
    numbers = (f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items())
    return f"{'passed' if result['passed'] else 'FAILED'}, {', '.join(numbers)}"


def main(args: Device) -> None:
    """Runs the command; its exit status says whether everything passed."""
    content = run(args)
    sys.exit(0 if all(part["passed"] for part in content["checks"] + content["programs"]) else 1)


if __name__ == "__main__":
    run_command(main, Device, "device", __doc__)
