"""The text of a compiled program as data: its computations and their instructions."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BYTES = {
    **dict.fromkeys(("pred", "s4", "u4", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("f32", "s32", "u32"), 4),
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*-> .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\]")
_LAYOUT = re.compile(r"\{[\d,]*(?::[^{}]*)?\}")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """One array of an instruction's result.

    Attributes:
        dtype: type of the elements, such as "f32".
        dims: sizes.
    """

    dtype: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> int:
        """Bytes without padding."""
        return self.size * _BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: its name, unique in the text.
        op: the operation, such as "fusion"; "custom-call:TARGET" for a custom call.
        shape: the text of the result's shape.
        operands: names of the operands.
        attributes: the text after the operands.
    """

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    attributes: str

    @functools.cached_property
    def arrays(self) -> tuple[ArrayShape, ...]:
        """The arrays of the result."""
        return tuple(
            ArrayShape(dtype, tuple(int(size) for size in dims.split(",") if size))
            for dtype, dims in _ARRAY.findall(self.shape)
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of the result without padding."""
        return sum(array.num_bytes for array in self.arrays)

    @property
    def short_shape(self) -> str:
        """The arrays of the result, without layouts."""
        return ", ".join(map(str, self.arrays))

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate; None where it states none."""
        match = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(match.group(1)) if match else None

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that the instruction calls, except for a loop's condition."""
        names = [n for n in _CALLED.findall(self.attributes) if n != self.attribute("condition")]
        branches = _BRANCHES.search(self.attributes)
        return (*names, *(n.strip().lstrip("%") for n in branches.group(1).split(","))) if branches else tuple(names)

    def attribute(self, name: str) -> str | None:
        """Returns the computation or word after ``name=``; None if there is none."""
        match = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return match.group(1) if match else None


@dataclasses.dataclass(frozen=True)
class CompiledText:
    """A compiled program.

    Attributes:
        computations: name → instructions.
        entry: name of the computation that a call runs.
    """

    computations: dict[str, list[Instruction]]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "CompiledText":
        """Parses the text of a compiled program.

        Args:
            text: as `jax.stages.Compiled.as_text` returns it.

        Raises:
            ValueError: the text has no entry computation.
        """
        computations: dict[str, list[Instruction]] = {}
        current, entry = None, None
        for line in text.splitlines():
            if current is None:
                if match := _COMPUTATION.match(line):
                    current = match.group(2)
                    computations[current] = []
                    entry = current if match.group(1) else entry
            elif line.startswith("}"):
                current = None
            elif match := _INSTRUCTION.match(line):
                computations[current].append(_instruction(match.group(1), match.group(2)))
        if entry is None:
            raise ValueError("compiled text has no ENTRY computation; expected the text of a compiled program")
        return cls(computations, entry)

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Name → instruction."""
        return {i.name: i for instructions in self.computations.values() for i in instructions}

    def of(self, computation: str | None) -> list[Instruction]:
        """Returns the instructions of a computation; none if there is no such one."""
        return self.computations.get(computation or "", [])

    def trips(self, loop: Instruction) -> int | None:
        """Returns how often a loop runs: as annotated, or the bound that its condition compares with; None if neither.

        Args:
            loop: a "while" instruction.
        """
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
        if known:
            return int(known.group(1))
        condition = self._inlined(loop.attribute("condition"))
        compares = [i for i in condition if i.op == "compare"]
        bounds = [int(i.operands[0]) for i in condition if i.op == "constant" and re.fullmatch(r"\d+", i.operands[0])]
        # Only a counter that is compared with one constant decides the trips; a further condition may end the loop
        # earlier, and a comparison of many numbers is no counter's.
        is_only = len(compares) == 1 and not compares[0].arrays[0].dims
        is_only = is_only and not any(i.op in ("and", "or", "not") for i in condition)
        return bounds[0] if is_only and len(set(bounds)) == 1 else None

    def _inlined(self, computation: str | None) -> list[Instruction]:
        instructions = self.of(computation)
        return instructions + [j for i in instructions for name in i.called for j in self._inlined(name)]

    def walk(self, computation: str | None = None) -> Iterator[Instruction]:
        """Yields every instruction that a call runs, those of fusions' own computations left out.

        Args:
            computation: where to begin; by default the entry.
        """
        for instruction in self.of(self.entry if computation is None else computation):
            yield instruction
            if instruction.op in ("while", "call", "conditional", "async-start"):
                for name in instruction.called:
                    yield from self.walk(name)

    def inside(self, fusion: Instruction) -> Iterator[Instruction]:
        """Yields the instructions of a fusion, and those of the fusions inside it."""
        for name in fusion.called if fusion.op == "fusion" else ():
            for instruction in self.of(name):
                yield instruction
                yield from self.inside(instruction)


def _instruction(name: str, rest: str) -> Instruction:
    shape, rest = _split_shape(rest)
    op, _, rest = rest.partition("(")
    operands, attributes = _split_operands(rest)
    if op == "custom-call":
        target = re.search(r'custom_call_target="([^"]+)"', attributes)
        op = f"custom-call:{target.group(1)}" if target else op
    return Instruction(name, op, shape, operands, attributes)


def _split_shape(text: str) -> tuple[str, str]:
    """Splits ``SHAPE op(...)``; a shape may be a tuple in parentheses, and layouts contain some of their own."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if depth == 0 and letter == " ":
            return text[:at], text[at + 1 :]
    return text, ""


def _split_operands(text: str) -> tuple[tuple[str, ...], str]:
    depth = 1
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            words = re.sub(r"/\*[^*]*\*/", "", _LAYOUT.sub("", text[:at])).split(",")
            return tuple(word.strip().rpartition(" ")[2].lstrip("%") for word in words if word.strip()), text[at + 1 :]
    return (), text
