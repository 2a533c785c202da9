"""Raw text to sessions: time and peak memory of our reader and sessionizer, against pandas if it is installed.

    python -m benchmarks.sessionize --interactions 10000000 --rounds 1 --json FILE
    python -m benchmarks.sessionize --interactions 100000000 --rounds 0 --no-pandas --json FILE

Every candidate runs in a process of its own, so that its peak memory is its own.
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .command_line import run_command
from .harness import Bench, compare, machine, write_measurement

_ROWS_PER_DAY = 1_000_000
_DAY_MS = 86_400_000
_START_MS = 1_400_025_600_000


@dataclasses.dataclass(frozen=True)
class Size(Bench):
    """Options of this benchmark.

    Attributes:
        interactions: rows of the synthetic log.
        pandas: whether to measure pandas too, if it is installed.
    """

    interactions: int = 10_000_000
    pandas: bool = True


def write_log(path: pathlib.Path, interactions: int) -> None:
    """Writes a log in order of time: a million rows per day by 100,000 of 1,000,000 users."""
    import polars as pl

    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for day, first in enumerate(range(0, interactions, _ROWS_PER_DAY)):
            rows = min(_ROWS_PER_DAY, interactions - first)
            users = rng.integers(0, 1_000_000, max(rows // 10, 1))
            columns = {
                "user": users[rng.integers(0, len(users), rows)],
                "item": (500_000 * rng.random(rows) ** 3).astype(np.int64),
                "time": _START_MS + day * _DAY_MS + np.sort(rng.integers(0, _DAY_MS, rows)),
            }
            pl.DataFrame(columns).write_csv(file, include_header=first == 0)


def sessionize_with_alkd(path: pathlib.Path) -> int:
    """Reads and sessionizes with this library; returns the number of sessions."""
    from alkd_jax.data import load_table, sessionize

    return len(sessionize(load_table(path)))


def sessionize_with_pandas(path: pathlib.Path) -> int:
    """The usual pandas script; returns the number of sessions."""
    pd = importlib.import_module("pandas")
    log = pd.read_csv(path).sort_values(["user", "time"], kind="stable")
    log["day"] = log["time"] // _DAY_MS
    size = log.groupby(["user", "day"])["item"].transform("size")
    log = log[size.between(5, 19)].drop_duplicates(["user", "day", "item"])
    sizes = log.groupby(["user", "day"]).size()
    return int((sizes > 1).sum())


def child(which: str, path: pathlib.Path) -> dict[str, float]:
    """Runs one candidate in its own process; returns seconds without imports, peak memory and number of sessions."""
    code = f"from {__package__} import sessionize; sessionize.report({which!r}, {str(path)!r})"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(completed.stdout.splitlines()[-1])


def report(which: str, path: str) -> None:
    """Runs in the child process and prints its measurements."""
    work = sessionize_with_alkd if which == "alkd_jax" else sessionize_with_pandas
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    sessions = work(pathlib.Path(path))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = {"seconds": seconds, "peak_gib": peak / 2**20, "peak_gib_before": before / 2**20, "sessions": sessions}
    print(json.dumps(numbers))


def main(bench: Bench) -> None:
    """Writes the log and runs the candidates."""
    rows = 20_000 if bench.smoke else getattr(bench, "interactions", 1_000_000)
    pandas = getattr(bench, "pandas", True) and importlib.util.find_spec("pandas") is not None
    reports: dict[str, dict[str, float]] = {}

    def runner(which: str, path: pathlib.Path) -> Callable[[], None]:
        return lambda: reports.update({which: child(which, path)})

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "log.csv"
        write_log(path, rows)
        about: dict[str, Any] = {"interactions": rows, "file_gib": path.stat().st_size / 2**30, "runs": reports}
        candidates = {which: runner(which, path) for which in ("alkd_jax", *(["pandas"] if pandas else []))}
        if bench.rounds:
            compare("sessionize", candidates, bench, **about)
            return
        # The log is so long that one run is enough.
        for work in candidates.values():
            work()
    write_measurement({"name": "sessionize", **about, **machine()}, bench)


if __name__ == "__main__":
    run_command(main, Size, "sessionize", __doc__)
