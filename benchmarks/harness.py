"""How everything here is measured: candidates in turn, round after round, compared within the round."""

import dataclasses
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every benchmark is asked.

    Attributes:
        json: file that gets a JSON line a measurement, appended; none where not given.
        rounds: times every candidate is measured, in turn, after one round that is not counted.
        toy: sizes that only prove the benchmark still runs.
    """

    json: pathlib.Path | None = None
    rounds: int = 7
    toy: bool = False


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call, until its results are there."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - began


def compare(name: str, candidates: Mapping[str, Callable[[], Any]], bench: Bench, **about: Any) -> dict[str, Any]:
    """Measures candidates against the first of them.

    Args:
        name: of the measurement.
        candidates: label → work; the first is the yardstick.
        bench: what was asked.
        **about: sizes and the like, written beside the numbers.

    Returns:
        Medians in seconds, and for every other candidate the median over rounds of its time over the yardstick's,
        with the middle half of those ratios: machines drift, ratios within a round do not.
    """
    for work in candidates.values():
        seconds(work)
    rounds = [{label: seconds(work) for label, work in candidates.items()} for _ in range(bench.rounds)]
    yardstick = next(iter(candidates))
    measurement: dict[str, Any] = {"name": name, **about, **machine(), "rounds": bench.rounds, "yardstick": yardstick}
    measurement["median_s"] = {label: statistics.median(row[label] for row in rounds) for label in candidates}
    for label in candidates:
        if label == yardstick:
            continue
        ratios = sorted(row[label] / row[yardstick] for row in rounds)
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        measurement.setdefault("ratio", {})[label] = {"median": statistics.median(ratios), "middle": [low, high]}
    print(json.dumps(measurement), flush=True)
    if bench.json is not None:
        with bench.json.open("a") as lines:
            lines.write(json.dumps(measurement) + "\n")
    return measurement


def machine() -> dict[str, Any]:
    """Device and versions."""
    device = jax.devices()[0]
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    return {"platform": device.platform, "device": device.device_kind, **versions}
