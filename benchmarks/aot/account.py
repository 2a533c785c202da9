"""What a compiled text says of a program's cost: loops, kernels, copies, collectives, and the compiler's estimate.

A TPU's compiler states estimated cycles for most instructions, and none for gathers, scatters, sorts and the like.
These are listed apart, and priced with the pessimistic rates of :func:`pessimistic_seconds`. A GPU's compiler states no
cycles; there the number of kernels that a step launches is what can be compared.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from .compiled_text import CompiledText, Instruction
from .targets import Target

_NO_WORK = frozenset(
    (
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
        "opt-barrier",
        "optimization-barrier",
        "add-dependency",
        "copy-done",
        "async-done",
        "all-reduce-done",
        "all-gather-done",
        "collective-permute-done",
        "send-done",
        "recv-done",
        "custom-call:AllocateBuffer",
    )
)
"""Instructions that neither compute nor move anything."""

_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_COPIES = frozenset(("copy", "copy-start", "transpose"))
_ONLY_MOVES = frozenset(("parameter", "copy", "transpose", "bitcast", "tuple", "reshape"))
_UNCOSTED = (
    "gather",
    "scatter",
    "sort",
    "dynamic-slice",
    "dynamic-update-slice",
    "custom-call:TopK",
    "rng-bit-generator",
)
"""Operations that a TPU's compiler may leave without an estimate although they take time."""

_TILE_BYTES = 8 * 128 * 4
"""Bytes of a tile of 8 x 128 numbers, the smallest piece of an array that a TPU moves."""
_LANES, _ALUS = 8 * 128, 4
"""Numbers that a TPU's vector unit processes in a cycle, and operations on each ("How to Scale Your Model", part 2)."""


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction that a call runs.

    Attributes:
        instruction: the instruction.
        calls: how often it runs; a loop of unknown length counts once.
        depth: number of loops around it.
    """

    instruction: Instruction
    calls: int
    depth: int


@dataclasses.dataclass(frozen=True)
class Account:
    """What a text says of one call.

    Attributes:
        kernels_per_step: device operations of one step, or of a call where there is no loop over steps.
        longest_loop_trips: trips of the longest loop; None if the length of one depends on the data.
        unknown_loops: number of loops whose length depends on the data.
        table_copies: copies of at least a table's size that a call makes.
        table_copies_in_loops: those of them that are inside a loop.
        largest_collective_bytes: of the largest array that devices exchange; 0 if they exchange none.
        estimated_us: the compiler's estimate; None where it states none.
        uncosted: ``(op, shape, calls)`` of the operations that take time and have no estimate.
        pessimistic_us: the estimate plus the uncosted operations at the stated rates.
        sorted_elements: numbers that enter a sort or TopK in a call.
    """

    kernels_per_step: int
    longest_loop_trips: int | None
    unknown_loops: int
    table_copies: int
    table_copies_in_loops: int
    largest_collective_bytes: int
    estimated_us: float | None
    uncosted: tuple[tuple[str, str, int], ...]
    pessimistic_us: float | None
    sorted_elements: int


def account(text: CompiledText, target: Target, *, table_bytes: int, steps: int | None = None) -> Account:
    """Returns what a text says of one call.

    Args:
        text: the compiled program.
        target: the accelerator that it was compiled for.
        table_bytes: size from which a copy counts as one of a table.
        steps: trips of the loop over steps; None if there is no such loop.
    """
    runs = list(_runs(text, text.entry, 1, 0))
    trips = [text.trips(run.instruction) for run in runs if run.instruction.op == "while"]
    copies = [run for run in runs if _is_copy(text, run.instruction) and run.instruction.num_bytes >= table_bytes]
    exchanged = [_exchanged_bytes(run.instruction) for run in runs]
    uncosted: dict[tuple[str, str], int] = {}
    estimated = pessimistic = None
    if target.platform == "tpu":
        costed = sum((run.instruction.cycles or 0) * run.calls for run in runs)
        left_out = [(run, op) for run in runs if (op := uncosted_operation(text, run.instruction)) is not None]
        for run, op in left_out:
            key = op, run.instruction.short_shape
            uncosted[key] = uncosted.get(key, 0) + run.calls
        added = sum(pessimistic_seconds(op, run.instruction, text, target) * run.calls for run, op in left_out)
        estimated = 1e6 * costed / target.clock
        pessimistic = estimated + 1e6 * added
    return Account(
        kernels_per_step=_kernels_per_step(text, steps),
        longest_loop_trips=None if None in trips else max((t for t in trips if t is not None), default=0),
        unknown_loops=trips.count(None),
        table_copies=len(copies),
        table_copies_in_loops=sum(run.depth > 0 for run in copies),
        largest_collective_bytes=max(exchanged, default=0),
        estimated_us=estimated,
        uncosted=tuple((op, shape, calls) for (op, shape), calls in uncosted.items()),
        pessimistic_us=pessimistic,
        sorted_elements=sum(_sorted_elements(text, run.instruction) * run.calls for run in runs),
    )


def _runs(text: CompiledText, computation: str, calls: int, depth: int) -> Iterator[Run]:
    """Yields the instructions of a computation and of what it calls; of a condition's branches only the costliest."""
    for instruction in text.of(computation):
        yield Run(instruction, calls, depth)
        if instruction.op == "while":
            body = instruction.attribute("body") or ""
            yield from _runs(text, body, calls * (text.trips(instruction) or 1), depth + 1)
        elif instruction.op == "conditional":
            branches = [list(_runs(text, name, calls, depth)) for name in instruction.called]
            yield from max(branches, key=_weight, default=[])
        elif instruction.op in ("call", "async-start"):
            for name in instruction.called:
                yield from _runs(text, name, calls, depth)


def _weight(runs: list[Run]) -> tuple[int, int]:
    return sum((run.instruction.cycles or 0) * run.calls for run in runs), sum(run.calls for run in runs)


def _kernels_per_step(text: CompiledText, steps: int | None) -> int:
    """The device operations in the body of the loop over steps, with the loops inside it as often as they run."""
    entry = text.entry
    if steps is not None:
        loops = [i for i in text.walk() if i.op == "while" and text.trips(i) == steps]
        bodies = [loop.attribute("body") or "" for loop in loops]
        entry = max(bodies, key=lambda body: _num_kernels(text, body), default=text.entry)
    return _num_kernels(text, entry)


def _num_kernels(text: CompiledText, computation: str) -> int:
    containers = ("while", "conditional", "call")
    runs = _runs(text, computation, 1, 0)
    return sum(run.calls for run in runs if run.instruction.op not in _NO_WORK | set(containers))


def _is_copy(text: CompiledText, instruction: Instruction) -> bool:
    if instruction.op == "fusion":
        inner = {i.op for name in instruction.called for i in text.of(name)}
        return bool(inner) and inner <= _ONLY_MOVES
    return instruction.op in _COPIES


def _exchanged_bytes(instruction: Instruction) -> int:
    op = instruction.op.removesuffix("-start")
    if op == "async":
        op = next((name for name in _COLLECTIVES if name in instruction.attributes), op)
    return max((array.num_bytes for array in instruction.arrays), default=0) if op in _COLLECTIVES else 0


def uncosted_operation(text: CompiledText, instruction: Instruction) -> str | None:
    """Returns the operation of an instruction that takes time and has no estimate, else None; a fusion is its core.

    Args:
        text: the compiled program.
        instruction: one of its instructions.
    """
    if instruction.cycles is not None or instruction.op in _NO_WORK:
        return None
    if instruction.op == "fusion":
        inner = {i.op for i in text.inside(instruction)}
        return next((op for op in _UNCOSTED if op in inner), None)
    is_custom = instruction.op.startswith("custom-call:")
    return instruction.op if instruction.op in _UNCOSTED or is_custom else None


def pessimistic_seconds(op: str, instruction: Instruction, text: CompiledText, target: Target) -> float:
    """The seconds of an operation without an estimate, by an upper bound that follows from the hardware's widths.

    * sort: a bitonic network of ``log₂N (log₂N + 1) / 2`` stages over rows padded to N = 2ᵐ; a stage compares and
      selects every operand on the vector unit, 4 operations on 8 x 128 numbers a cycle.
    * TopK: sorts blocks of k, then halves the number of candidates by ``log₂k + 1`` stages at a time.
    * gather, scatter and slices at computed places: every slice moves the whole tiles of 8 x 128 numbers that it
      touches from memory, and back where it is written.
    * other custom calls: their result is written and read once.

    Args:
        op: as of :func:`uncosted_operation`.
        instruction: the instruction.
        text: the compiled program.
        target: the accelerator.
    """
    if op == "sort":
        rows, length = _rows_and_length(instruction, text)
        m = max(1, math.ceil(math.log2(max(length, 2))))
        operations = rows * 2**m * m * (m + 1) / 2 * (1 + 2 * len(instruction.arrays))
        return operations / (_LANES * _ALUS * target.clock)
    if op == "custom-call:TopK":
        rows, length = _rows_and_length(instruction, text)
        m = max(1, math.ceil(math.log2(max(_list_length(instruction), 2))))
        stages = m * (m + 1) / 2 + 2 * (m + 1)
        return rows * length * stages * 5 / (_LANES * _ALUS * target.clock)
    if op.startswith("custom-call:") or op == "rng-bit-generator":
        return 2 * instruction.num_bytes / target.bandwidth
    size, slices = _slices(op, instruction, text)
    tiles = slices * max(1, math.ceil(size / _TILE_BYTES))
    writes = 2 if op in ("scatter", "dynamic-update-slice") else 1
    return writes * tiles * _TILE_BYTES / target.bandwidth


def _sorted_elements(text: CompiledText, instruction: Instruction) -> int:
    if instruction.op in ("sort", "custom-call:TopK"):
        rows, length = _rows_and_length(instruction, text)
        return rows * length
    return 0


def _rows_and_length(instruction: Instruction, text: CompiledText) -> tuple[int, int]:
    """The number of rows that a sort or TopK orders, and their length."""
    operand = text.by_name.get(instruction.operands[0]) if instruction.operands else None
    array = (operand or instruction).arrays[0]
    dimension = instruction.attributes.partition("dimensions={")[2].partition("}")[0]
    length = array.dims[int(dimension)] if dimension.isdecimal() else (array.dims[-1] if array.dims else 1)
    return array.size // max(length, 1), length


def _list_length(instruction: Instruction) -> int:
    dims = instruction.arrays[0].dims
    return dims[-1] if dims else 1


def _slices(op: str, instruction: Instruction, text: CompiledText) -> tuple[int, int]:
    """The bytes of one slice that is read or written at a computed place, and the number of slices."""
    if op in ("dynamic-slice", "dynamic-update-slice"):
        core = _core(op, instruction, text)
        moved = core if op == "dynamic-slice" else text.by_name.get(core.operands[1]) or core
        return moved.num_bytes, 1
    core = _core(op, instruction, text)
    if op == "gather":
        sizes = core.attributes.partition("slice_sizes={")[2].partition("}")[0]
        size = math.prod(int(s) for s in sizes.split(",") if s.strip()) * _width(core)
        return size, max(1, core.num_bytes // max(size, 1))
    updates = text.by_name.get(core.operands[-1]) if core.operands else None
    if updates is None or not updates.arrays:
        return core.num_bytes, 1
    window = core.attributes.partition("update_window_dims={")[2].partition("}")[0]
    dims = updates.arrays[0].dims
    size = math.prod(dims[int(d)] for d in window.split(",") if d.strip()) * _width(core)
    return size, max(1, updates.num_bytes // max(size, 1))


def _core(op: str, instruction: Instruction, text: CompiledText) -> Instruction:
    inner = (i for i in text.inside(instruction) if i.op == op)
    return instruction if instruction.op == op else next(inner, instruction)


def _width(instruction: Instruction) -> int:
    array = instruction.arrays[0]
    return array.num_bytes // max(array.size, 1)


def as_json(result: Account, target: Target) -> dict[str, Any]:
    """Returns the fields of an account as JSON values, with "why" for those that a target has no notion of.

    Args:
        result: the account.
        target: the accelerator.
    """
    fields = dataclasses.asdict(result) | {"uncosted": [list(entry) for entry in result.uncosted]}
    why = {}
    if target.platform == "tpu":
        fields["kernels_per_step"] = None
        why["kernels_per_step"] = "a TPU runs one program; there are no launches to count"
    else:
        reason = "a GPU's compiler states no cycles"
        why |= dict.fromkeys(("estimated_us", "uncosted", "pessimistic_us"), reason)
        fields["uncosted"] = None
    if result.longest_loop_trips is None:
        why["longest_loop_trips"] = f"{result.unknown_loops} loops end when their data say so"
    return fields | {"why": why}
