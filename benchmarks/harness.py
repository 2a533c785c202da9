"""Measurement: the candidates run in turn, round after round, and are compared within each round."""

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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Bench:
    """Options of every benchmark.

    Attributes:
        json: file to which one JSON line per measurement is appended; by default no file is written.
        rounds: number of samples of every candidate, after one round that is not counted.
        smoke: use tiny sizes, which only show that the benchmark still runs.
        profile: folder for a profile of the whole run, which TensorBoard and XProf show; by default none is made.
    """

    json: pathlib.Path | None = None
    rounds: int = 7
    smoke: bool = False
    profile: pathlib.Path | None = None


_PAUSE = 0.05
"""Seconds of rest before a sample, because idle threads of the previous candidate spin for some milliseconds."""


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU time of one call, until its results are ready; CPU time is that of all threads."""
    time.sleep(_PAUSE)
    wall, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(work())
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    name: str,
    candidates: Mapping[str, Callable[[], Any]],
    bench: Bench,
    *,
    sessions_per_call: int | None = None,
    flop: float | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Measures candidates and compares each with the first of them.

    Args:
        name: name of the measurement.
        candidates: label → function to measure; the first is the yardstick, to which the others are compared.
        bench: the benchmark's options.
        sessions_per_call: sessions that one call processes; if given, sessions per second are reported.
        flop: floating-point operations that one call needs at least; if given, the share of the measured rate of a
            matrix product is reported.
        **about: sizes and other facts, written beside the numbers.

    Returns:
        For every candidate: the median wall and CPU time in seconds with the middle half of the samples, by how many
        seconds the first call exceeds the median ("compile_s"), and by how much it raised the peak memory. For every
        candidate but the first also the median over rounds, with the middle half, of its time divided by the
        yardstick's time in the same round; a machine's speed drifts between rounds, but hardly within one. On a GPU
        the rate of a matrix product is measured by wall time, otherwise by CPU time.
    """
    first_calls = {label: _first_call(work) for label, work in candidates.items()}
    rounds = [{label: seconds(work) for label, work in candidates.items()} for _ in range(bench.rounds)]
    yardstick = next(iter(candidates))
    measurement: dict[str, Any] = {"name": name, **about, **machine(), "rounds": bench.rounds, "yardstick": yardstick}
    for column, kind in enumerate(("wall", "cpu")):
        samples = {label: [row[label][column] for row in rounds] for label in candidates}
        measurement[f"{kind}_s"] = {label: statistics.median(values) for label, values in samples.items()}
        measurement[f"{kind}_middle_s"] = {label: middle_half(values) for label, values in samples.items()}
        for label in candidates:
            if label != yardstick:
                ratios = [a / max(b, 1e-9) for a, b in zip(samples[label], samples[yardstick], strict=True)]
                summary = {"median": statistics.median(ratios), "middle": middle_half(ratios)}
                measurement.setdefault(f"{kind}_ratio", {})[label] = summary
    wall, kind = measurement["wall_s"], "cpu" if jax.default_backend() == "cpu" else "wall"
    measurement["compile_s"] = {label: max(0.0, first - wall[label]) for label, (first, _) in first_calls.items()}
    measurement["peak_memory_mib"] = {label: growth for label, (_, growth) in first_calls.items()}
    if sessions_per_call is not None:
        measurement["sessions_per_s"] = {label: sessions_per_call / value for label, value in wall.items()}
    if flop is not None:
        rate = matmul_rate(kind)
        share = {label: flop / (value * rate) for label, value in measurement[f"{kind}_s"].items()}
        measurement |= {"matmul_flop_per_s": rate, "flop": flop, "share_of_matmul": share}
    write_measurement(measurement, bench, readable_lines(measurement))
    return measurement


def write_measurement(measurement: Mapping[str, Any], bench: Bench, readable: Sequence[str] = ()) -> None:
    """Prints a measurement, and appends it as a JSON line to the file in `bench.json`, if there is one.

    Args:
        measurement: what was measured.
        bench: the benchmark's options.
        readable: lines that a terminal shows in place of the JSON line.
    """
    line = json.dumps(measurement)
    print("\n".join(readable) if readable and sys.stdout.isatty() else line, flush=True)
    if bench.json is not None:
        with bench.json.open("a") as lines:
            lines.write(line + "\n")


def readable_lines(measurement: Mapping[str, Any]) -> list[str]:
    """Returns a line on what was measured, and one for each candidate: rate, milliseconds, memory and ratio.

    Args:
        measurement: as of :func:`compare`.
    """
    told = ("name", "platform", "cores", "load", "jax", "python", "rounds", "yardstick", "flop", "matmul_flop_per_s")
    facts = {k: v for k, v in measurement.items() if k not in told and isinstance(v, str | int | float)}
    lines = [f"{measurement['name']}: {', '.join(f'{name} {value}' for name, value in facts.items())}"]
    for label, wall in measurement["wall_s"].items():
        steps = measurement.get("steps")
        parts = [f"{1e3 * wall / steps:,.3g} ms a step" if steps else f"{1e3 * wall:,.3g} ms"]
        if "sessions_per_s" in measurement:
            parts.insert(0, f"{measurement['sessions_per_s'][label]:,.0f} sessions/s")
        parts.append(f"peak memory {measurement['peak_memory_mib'][label]:,.0f} MiB more")
        if label in measurement.get("wall_ratio", {}):
            ratio = measurement["wall_ratio"][label]["median"]
            parts.append(f"{ratio:.3g} times the time of {measurement['yardstick']}")
        lines.append(f"  {label}: {', '.join(parts)}")
    return lines


def middle_half(values: list[float]) -> list[float]:
    """The lower and upper end of the middle half of the values (about the first and third quartile)."""
    ordered = sorted(values)
    return [ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]]


def peak_mib() -> float:
    """Peak memory so far in MiB: the device's where the backend reports it, otherwise this process's."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@functools.cache
def matmul_rate(kind: str) -> float:
    """FLOP per second of a product of two 1024² float32 matrices (8192² except on a CPU): the roofline."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    square, product = jnp.ones((size, size)), jax.jit(lambda a: jnp.dot(a, a, precision=jax.lax.Precision.HIGHEST))
    seconds(lambda: product(square))
    best = min(seconds(lambda: product(square))[kind == "cpu"] for _ in range(7))
    return 2.0 * size**3 / max(best, 1e-9)


def machine() -> dict[str, Any]:
    """Device, load and versions."""
    device = jax.devices()[0]
    hardware = {"platform": device.platform, "device": device.device_kind, "cores": os.cpu_count()}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return hardware | {"load": load, "jax": jax.__version__, "python": platform.python_version()}


def _first_call(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall time of a first call, and growth of the peak memory during it in MiB."""
    before = peak_mib()
    wall, _ = seconds(work)
    return wall, peak_mib() - before
