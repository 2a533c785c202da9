"""Expected efficiency on 8, 64 and 512 devices, from the programs that XLA partitions for them and their links' rates.

    python -m benchmarks.many_devices --json FILE

Each program is compiled for so many virtual CPU devices, which need not be there: XLA divides it among them before it
knows their platform. A JSON line for each program, mesh and accelerator holds the bytes that one device reads, writes,
computes and exchanges in a step, with every collective, and the time of each by published rates. Batches grow with the
devices (`--batch` examples for each along the data axis), so the efficiency is the time of a step on one device divided
by that on many. Nothing is taken to overlap.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .aot.compiled_text import CompiledText, Instruction
from .command_line import run_command
from .harness import Bench

FACTORS = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1, "collective-permute": 2}
"""Collective → how often a device of a ring of n sends (n − 1) / n of the whole array; a permutation joins two."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation, as one of the devices takes part in it.

    Attributes:
        op: a key of `FACTORS`.
        num_bytes: of the whole array: what every device has after an all-gather, and before a reduce-scatter.
        size: number of devices that it joins.
        stride: difference of the numbers of two neighbors among them.
    """

    op: str
    num_bytes: int
    size: int
    stride: int

    def seconds(self, links: "Links") -> float:
        """Returns the time: first among the devices that fast links join, then each with its share among the others."""
        near = max(1, min(self.size, links.near // self.stride))
        far = self.size // near
        sent = [FACTORS[self.op] * self.num_bytes * (n - 1) / n / share for n, share in ((near, 1), (far, near))]
        delay = math.ceil(math.log2(near)) * links.near_seconds + math.ceil(math.log2(far)) * links.far_seconds
        return sent[0] / links.near_bytes + sent[1] / links.far_bytes + delay

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends in a ring."""
        return FACTORS[self.op] * self.num_bytes * (self.size - 1) / self.size


@dataclasses.dataclass(frozen=True)
class Links:
    """An accelerator and the links between many of them.

    Attributes:
        bandwidth: of its memory, bytes per second.
        flops: rate of float32 products, per second.
        near: number of devices that the fast links connect.
        near_bytes: that a device sends on these, per second.
        far_bytes: that a device sends to others, per second.
        near_seconds: until a message arrives on the fast links; an assumption, as no vendor states it.
        far_seconds: the same for others.
    """

    bandwidth: float
    flops: float
    near: int
    near_bytes: float
    far_bytes: float
    near_seconds: float
    far_seconds: float


ACCELERATORS = {
    # 1,600 Gbit/s between chips on four links, of which a ring uses two; a slice has at most 256 chips; 3.1 GB/s a chip
    # between slices ("How to Scale Your Model"). Float32 products take six passes of bfloat16.
    "v5e": Links(819e9, 197e12 / 6, 256, 100e9, 3.125e9, 1e-6, 20e-6),
    # NVLink 900 GB/s in both directions among eight GPUs, InfiniBand 400 Gbit/s for each GPU (DGX H100).
    "h100": Links(3352e9, 67e12, 8, 450e9, 50e9, 3e-6, 10e-6),
}
"""Name → rates of the vendors' data sheets."""


@dataclasses.dataclass(frozen=True)
class ManyDevices(Bench):
    """Options of this benchmark.

    Attributes:
        programs: "interval", the steps of `fit`, and "fit_large".
        devices: numbers of devices.
        batch: examples of a step for each device along the data axis.
        items: V of `fit`, and of `fit_large`.
        dim: width D.
    """

    programs: tuple[str, ...] = ("interval", "fit_large")
    devices: tuple[int, ...] = (8, 64, 512)
    batch: int = 1024
    items: tuple[int, int] = (100_000, 10_000_000)
    dim: int = 64


def meshes(program: str, num: int) -> list[tuple[int, int]]:
    """Returns the sizes of the data and model axes to compare on so many devices."""
    if num == 1:
        return [(1, 1)]
    return [(num, 1), (num // 8, 8)] if program == "interval" else [(num // 8, 8), (1, num)]


def compiled_step(program: str, data: int, model: int, bench: ManyDevices) -> dict[str, Any]:
    """Returns what one device does in a step: flops, bytes and collectives; runs in a process with the devices."""
    import jax

    from .aot import sharded_programs
    from .aot.cases import parse_case

    num_items = bench.items[program == "fit_large"]
    case = parse_case(f"sharded:program={program},V={num_items},D={bench.dim},devices={data * model}")
    mesh = sharded_programs.make_mesh(jax.devices(), data, model)
    compiled = sharded_programs.step(case, mesh, batch=bench.batch * data).lower().compile()
    costs, text = compiled.cost_analysis(), CompiledText.parse(compiled.as_text())
    # Row-sparse updates write tables in place, where the analysis counts whole tables.
    own_table = 4 * num_items * bench.dim // model
    return {
        "flops": costs["flops"],
        "memory_bytes": bytes_without(text, own_table) if program == "fit_large" else costs["bytes accessed"],
        "collectives": [
            dataclasses.asdict(each) for each in collectives(CompiledText.parse(compiled.as_text()), data, model)
        ],
    }


def bytes_without(text: CompiledText, table_bytes: int) -> int:
    """Returns the bytes that a call writes and reads again, without arrays as large as a table."""
    kept = (
        i.num_bytes for i in text.walk() if i.op not in ("parameter", "tuple", "get-tuple-element", "while", "call")
    )
    return 2 * sum(num_bytes for num_bytes in kept if num_bytes < table_bytes // 2)


def collectives(text: CompiledText, data: int, model: int) -> Iterator[Collective]:
    """Yields the collectives of a call; those of one device are left out."""
    for instruction in text.walk():
        op = instruction.op.removesuffix("-start")
        size, stride = group_of(instruction, data, model) if op in FACTORS else (1, 1)
        if size > 1:
            whole = size if op == "reduce-scatter" else 1
            yield Collective(op, whole * instruction.num_bytes, size, stride)


def group_of(instruction: Instruction, data: int, model: int) -> tuple[int, int]:
    """Returns how many devices a collective joins, and the difference of the numbers of two neighbors among them.

    Devices are numbered along the model axis first.
    """
    text = instruction.attributes
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=\[[\d,]+\](T\()?", text):
        return int(match[1]), model if match[2] else 1
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        members = [int(number) for number in match[1].split(",")]
        return len(members), members[1] - members[0] if len(members) > 1 else 1
    if match := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text):
        return 2, max(1, abs(int(match[1]) - int(match[2])))
    return data * model, 1


def times(step: Mapping[str, Any], links: Links) -> dict[str, float]:
    """Returns the microseconds of a step: those of one device's work, and those of what it exchanges."""
    work = max(step["flops"] / links.flops, step["memory_bytes"] / links.bandwidth)
    exchange = sum(Collective(**each).seconds(links) for each in step["collectives"])
    return {"work_us": 1e6 * work, "exchange_us": 1e6 * exchange}


def in_own_process(program: str, data: int, model: int, bench: ManyDevices) -> dict[str, Any]:
    """Returns :func:`compiled_step` of a process that has the devices."""
    options = {name: value for name, value in dataclasses.asdict(bench).items() if name not in ("json", "profile")}
    code = f"from {__package__} import many_devices as m; m.child({program!r}, {data}, {model}, {options!r})"
    flags = f"--xla_force_host_platform_device_count={data * model}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} on data={data},model={model}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(program: str, data: int, model: int, options: dict[str, Any]) -> None:
    """Prints :func:`compiled_step` as JSON."""
    print(json.dumps(compiled_step(program, data, model, ManyDevices(**options))))


def main(bench: ManyDevices) -> None:
    """Compiles every program for every mesh, and prints and writes a line for each accelerator."""
    if bench.smoke:
        bench = dataclasses.replace(bench, devices=(8,), items=(1000, 1000), dim=4, batch=16)
    for program in bench.programs:
        alone: dict[str, float] = {}
        for data, model in (mesh for num in (1, *bench.devices) for mesh in meshes(program, num)):
            step = in_own_process(program, data, model, bench)
            for name, links in ACCELERATORS.items():
                found = times(step, links)
                total = found["work_us"] + found["exchange_us"]
                # The devices along a model axis share the batch of one.
                ideal = alone.setdefault(name, total) / model
                largest = max((each["num_bytes"] for each in step["collectives"]), default=0)
                line: dict[str, Any] = {
                    "name": "many_devices",
                    "program": program,
                    "accelerator": name,
                    "data": data,
                    "model": model,
                    "batch": bench.batch * data,
                    "efficiency": ideal / total,
                    "exchanged_bytes": exchanged(step),
                    "largest_collective_bytes": largest,
                    **found,
                    **step,
                }
                print(summary(line), flush=True)
                if bench.json is not None:
                    with bench.json.open("a") as lines:
                        lines.write(json.dumps(line) + "\n")


def exchanged(step: Mapping[str, Any]) -> float:
    """Returns the bytes that a device sends in a step."""
    return sum(Collective(**each).sent_bytes for each in step["collectives"])


def summary(line: Mapping[str, Any]) -> str:
    """Returns a row of a Markdown table."""
    mesh = f"data={line['data']},model={line['model']}"
    cells = [line["program"], line["accelerator"], mesh, f"{line['work_us']:,.0f} µs", f"{line['exchange_us']:,.0f} µs"]
    cells += [f"{line['exchanged_bytes'] / 2**20:,.2f} MiB", f"{line['efficiency']:.0%}"]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run_command(main, ManyDevices, "many_devices", __doc__)
