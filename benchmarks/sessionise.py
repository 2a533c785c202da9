"""Raw text to sessions: time and peak memory of our reader and sessioniser, against pandas where it is installed.

python -m benchmarks.sessionise --interactions 10000000 --rounds 1 --json FILE
python -m benchmarks.sessionise --interactions 100000000 --rounds 0 --no-pandas --json FILE

Every candidate runs in a process of its own, so that one's memory is not another's.
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
import tyro

from benchmarks.harness import Bench, compare, machine, tell

_A_DAY = 1_000_000
_MILLISECONDS = 86_400_000
_START = 1_400_025_600_000


@dataclasses.dataclass(frozen=True)
class Size(Bench):
    """What is asked of this benchmark.

    Attributes:
        interactions: rows of the made-up log.
        pandas: whether pandas runs too, where it is installed.
    """

    interactions: int = 10_000_000
    pandas: bool = True


def write_log(path: pathlib.Path, interactions: int) -> None:
    """Writes a log in the order of time: a million rows a day by a tenth as many of 1,000,000 users."""
    import polars as pl

    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for day, first in enumerate(range(0, interactions, _A_DAY)):
            rows = min(_A_DAY, interactions - first)
            here = rng.integers(0, 1_000_000, max(rows // 10, 1))
            columns = {
                "user": here[rng.integers(0, len(here), rows)],
                "item": (500_000 * rng.random(rows) ** 3).astype(np.int64),
                "time": _START + day * _MILLISECONDS + np.sort(rng.integers(0, _MILLISECONDS, rows)),
            }
            pl.DataFrame(columns).write_csv(file, include_header=first == 0)


def sessionise_with_us(path: pathlib.Path) -> int:
    """Reads and cuts with this library; returns the number of sessions."""
    from alkd_jax.data import load_table, sessionize

    return len(sessionize(load_table(path)))


def sessionise_with_pandas(path: pathlib.Path) -> int:
    """The usual script of the field; returns the number of sessions."""
    pd = importlib.import_module("pandas")
    log = pd.read_csv(path).sort_values(["user", "time"], kind="stable")
    log["day"] = log["time"] // _MILLISECONDS
    size = log.groupby(["user", "day"])["item"].transform("size")
    log = log[size.between(5, 19)].drop_duplicates(["user", "day", "item"])
    sizes = log.groupby(["user", "day"]).size()
    return int((sizes > 1).sum())


def child(which: str, path: pathlib.Path) -> dict[str, float]:
    """Runs one candidate in its own process; seconds without the start, peak memory, sessions."""
    code = f"from benchmarks import sessionise; sessionise.report({which!r}, {str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(which: str, path: str) -> None:
    """What a child process runs."""
    work = sessionise_with_us if which == "alkd_jax" else sessionise_with_pandas
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    sessions = work(pathlib.Path(path))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {"seconds": seconds, "peak_gib": peak / 2**20, "peak_gib_before": before / 2**20, "sessions": sessions}
    print(json.dumps(told))


def main(bench: Bench) -> None:
    """Makes the log, runs the candidates."""
    rows = 20_000 if bench.smoke else getattr(bench, "interactions", 1_000_000)
    pandas = getattr(bench, "pandas", True) and importlib.util.find_spec("pandas") is not None
    told: dict[str, dict[str, float]] = {}

    def runner(which: str, path: pathlib.Path) -> Callable[[], None]:
        return lambda: told.update({which: child(which, path)})

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "log.csv"
        write_log(path, rows)
        about: dict[str, Any] = {"interactions": rows, "file_gib": path.stat().st_size / 2**30, "runs": told}
        candidates = {which: runner(which, path) for which in ("alkd_jax", *(["pandas"] if pandas else []))}
        if bench.rounds:
            compare("sessionise", candidates, bench, **about)
            return
        # a log so long that once is enough
        for work in candidates.values():
            work()
    tell({"name": "sessionise", **about, **machine()}, bench)


if __name__ == "__main__":
    main(tyro.cli(Size, description=__doc__))
