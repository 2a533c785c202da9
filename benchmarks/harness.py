"""How everything here is measured: candidates in turn, round after round, compared within the round."""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every benchmark is asked.

    Attributes:
        json: file that gets a JSON line a measurement, appended; none where not given.
        rounds: times every candidate is measured, in turn, after one round that is not counted.
        smoke: sizes that only prove the benchmark still runs.
    """

    json: pathlib.Path | None = None
    rounds: int = 7
    smoke: bool = False


_PAUSE = 0.05
"""Seconds of rest before a sample: idle threads of the one before go on spinning for some milliseconds."""


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU time of one call, until its results are there; CPU time is that of all threads."""
    time.sleep(_PAUSE)
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    name: str,
    candidates: Mapping[str, Callable[[], Any]],
    bench: Bench,
    *,
    sessions_a_call: int | None = None,
    flop: float | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Measures candidates against the first of them.

    Args:
        name: of the measurement.
        candidates: label → work; the first is the yardstick.
        bench: what was asked.
        sessions_a_call: that one call goes through, for sessions a second.
        flop: that one call cannot do without, for the share of the measured matmul rate.
        **about: sizes and the like, written beside the numbers.

    Returns:
        For every candidate the medians in seconds of wall and CPU time with the middle half of the samples, the first
        call's extra seconds ("compile_s") and growth of the process's peak memory, and for every candidate but the
        first the median over rounds of its time over the yardstick's with the middle half: machines drift, ratios
        within a round do not. On a GPU the matmul rate is by wall time, else by CPU time.
    """
    firsts = {label: _first(work) for label, work in candidates.items()}
    rounds = [{label: seconds(work) for label, work in candidates.items()} for _ in range(bench.rounds)]
    yardstick = next(iter(candidates))
    measurement: dict[str, Any] = {"name": name, **about, **machine(), "rounds": bench.rounds, "yardstick": yardstick}
    for place, kind in enumerate(("wall", "cpu")):
        samples = {label: [row[label][place] for row in rounds] for label in candidates}
        measurement[f"{kind}_s"] = {label: statistics.median(values) for label, values in samples.items()}
        measurement[f"{kind}_middle_s"] = {label: middle(values) for label, values in samples.items()}
        for label in candidates:
            if label != yardstick:
                ratios = [a / max(b, 1e-9) for a, b in zip(samples[label], samples[yardstick], strict=True)]
                told = {"median": statistics.median(ratios), "middle": middle(ratios)}
                measurement.setdefault(f"{kind}_ratio", {})[label] = told
    wall, kind = measurement["wall_s"], "cpu" if jax.default_backend() == "cpu" else "wall"
    measurement["compile_s"] = {label: max(0.0, first - wall[label]) for label, (first, _) in firsts.items()}
    measurement["peak_memory_mib"] = {label: grown for label, (_, grown) in firsts.items()}
    if sessions_a_call is not None:
        measurement["sessions_per_s"] = {label: sessions_a_call / value for label, value in wall.items()}
    if flop is not None:
        rate = matmul_rate(kind)
        share = {label: flop / (value * rate) for label, value in measurement[f"{kind}_s"].items()}
        measurement |= {"matmul_flop_per_s": rate, "flop": flop, "share_of_matmul": share}
    tell(measurement, bench)
    return measurement


def tell(measurement: Mapping[str, Any], bench: Bench) -> None:
    """Prints a measurement as a JSON line, and appends it to the file asked for."""
    line = json.dumps(measurement)
    print(line, flush=True)
    if bench.json is not None:
        with bench.json.open("a") as lines:
            lines.write(line + "\n")


def middle(values: list[float]) -> list[float]:
    """The ends of the middle half."""
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]]


def peak_mib() -> float:
    """Peak memory so far: the device's where it tells, else of this process."""
    told = jax.devices()[0].memory_stats()
    if told and "peak_bytes_in_use" in told:
        return told["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@functools.cache
def matmul_rate(kind: str) -> float:
    """FLOP a second of a product of two 1024² (elsewhere than on a CPU 8192²) float32 matrices: the roofline here."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    square, product = jnp.ones((size, size)), jax.jit(lambda a: jnp.dot(a, a, precision=jax.lax.Precision.HIGHEST))
    seconds(lambda: product(square))
    best = min(seconds(lambda: product(square))[kind == "cpu"] for _ in range(7))
    return 2.0 * size**3 / max(best, 1e-9)


def machine() -> dict[str, Any]:
    """Device, load and versions."""
    device = jax.devices()[0]
    told = {"platform": device.platform, "device": device.device_kind, "cores": os.cpu_count()}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return told | {"load": load, "jax": jax.__version__, "python": platform.python_version()}


def _first(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall time of a first call and how much the peak of memory grew by it."""
    before = peak_mib()
    wall, _ = seconds(work)
    return wall, peak_mib() - before
