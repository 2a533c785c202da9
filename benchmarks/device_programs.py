"""The programs that are timed on a device, each beside what its compiled text says of it."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .aot.abstract import Program
from .aot.account import account
from .aot.cases import Case, parse_case
from .aot.compiled_text import CompiledText
from .aot.programs import build
from .aot.targets import TARGETS, Target

_KINDS = {"v5 lite": "v5e", "v5e": "v5e", "v5p": "v5p", "v5": "v5p", "v6": "v6e", "H200": "h200", "H100": "h100"}
"""Part of a device's kind → target, the first that fits."""
_ROUNDS = 7
_SECONDS_QUEUED = 0.05
"""Seconds of calls that are queued at once."""
_NUM_ROWS = 7000
"""Rows that are referred to; every table of a full run has more, and a gather of others stays in bounds."""


@dataclasses.dataclass(frozen=True)
class PresentTarget(Target):
    """A target whose devices are those of this process."""

    def devices(self, num: int = 1) -> Any:
        """Returns the first devices of this process, ``[num]``."""
        return np.asarray(jax.devices()[:num])


def parts(*, smoke: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns the programs by the names of their cases, the most important first.

    Args:
        smoke: use tiny sizes.
    """
    texts = (
        "interval:backbone=fpmc,width=10",
        "interval:backbone=fpmc,width=100",
        "top_k:V=1e5,B=256,k=100",
        "top_k:V=1e6,B=4096,k=10",
        "ranks:V=26138,B=512",
        "fit_large:optimizer=rowwise_adagrad,V=1e6",
        "update:optimizer=adam,V=1e6",
        "interval:backbone=stamp,width=10",
        "interval:backbone=attmix,width=10",
        "interval:backbone=late_interaction,width=10",
        "interval:backbone=fpmc,width=10,seeds=5",
        "interval:backbone=fpmc,width=10,loss=softmax",
        "evaluation:backbone=fpmc,width=100",
        "loss:name=chunked_softmax,V=1e5",
        "select:N=1e7,num=500",
        "top_k:V=1e7,B=64,k=100",
        "fit_large:optimizer=adam,V=1e7",
        "interval:backbone=fpmc,width=100,V=26138",
        "method:name=ALKDRec",
        "game:N=1e6",
    )
    tiny = ("interval:backbone=fpmc,width=4,V=300,steps=2", "top_k:V=300,B=8,k=5,D=4")
    cases = [parse_case(text) for text in (tiny if smoke else texts)]
    return {str(case): functools.partial(measure, case) for case in cases}


def measure(case: Case) -> dict[str, Any]:
    """Compiles a program for the present device, times it, and returns both with what its text says.

    Args:
        case: the program and its sizes.
    """
    target, is_known = present_target()
    program = build(case, target)
    start = time.perf_counter()
    compiled = program.lower().compile()
    compile_s = time.perf_counter() - start
    memory = compiled.memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes if memory is not None else 0
    measured = _microseconds(program, compiled) * program.calls
    result: dict[str, Any] = {"measured_us": measured, "compile_s": compile_s, "calls": program.calls}
    result |= {"steps": program.steps, "temp_bytes": getattr(memory, "temp_size_in_bytes", None)}
    if program.steps:
        result["measured_us_per_step"] = measured / program.steps
    if not is_known:
        return result | {"why": f"no figures are known of {jax.devices()[0].device_kind}"}
    text = account(CompiledText.parse(compiled.as_text()), target, table_bytes=program.table_bytes, steps=program.steps)
    result["memory_us"] = 1e6 * (program.ideal_bytes or moved) * program.calls / target.bandwidth
    if text.estimated_us is None:
        result["kernels_per_step"] = text.kernels_per_step
        return result | {"gap": measured / result["memory_us"], "beside": "the time of the memory"}
    result |= {"estimated_us": text.estimated_us * program.calls, "uncosted": [list(row) for row in text.uncosted]}
    result["pessimistic_us"] = (text.pessimistic_us or 0.0) * program.calls
    return result | {"gap": measured / max(result["estimated_us"], 1e-9), "beside": "the compiler's estimate"}


def present_target() -> tuple[Target, bool]:
    """Returns the first device as a target, and whether its figures are known; else it has those of another one."""
    kind = jax.devices()[0].device_kind
    name = next((name for part, name in _KINDS.items() if part in kind), None)
    return PresentTarget(**vars(TARGETS[name or "h100"])), name is not None


def _microseconds(program: Program, compiled: Any) -> float:
    """The median time of a call. Calls that keep their arguments are queued, so that no launch is waited for."""
    rng = np.random.default_rng(0)
    is_dynamic = [all(map(_is_description, jax.tree.leaves(argument))) for argument in program.arguments]
    described = [argument for argument, chosen in zip(program.arguments, is_dynamic, strict=True) if chosen]
    arguments = jax.tree.map(functools.partial(_values, rng), described)
    fresh = jax.block_until_ready(jax.tree.map(jnp.copy, arguments))
    jax.block_until_ready(compiled(*fresh))
    is_donated = any(leaf.is_deleted() for leaf in jax.tree.leaves(fresh))
    samples, calls = [], 1
    for _ in range(_ROUNDS):
        fresh = jax.block_until_ready(jax.tree.map(jnp.copy, arguments)) if is_donated else arguments
        start = time.perf_counter()
        for _ in range(calls):
            results = compiled(*fresh)
        jax.block_until_ready(results)
        samples.append((time.perf_counter() - start) / calls)
        calls = 1 if is_donated else max(1, min(100, int(_SECONDS_QUEUED / samples[-1])))
    return 1e6 * statistics.median(samples[1:])


def _is_description(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _values(rng: np.random.Generator, description: jax.ShapeDtypeStruct) -> jax.Array:
    """Values of a described array: rows that every table has, positive numbers, and bounds in ascending order."""
    shape, dtype = description.shape, description.dtype
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), shape) if shape else jax.random.key(0)
    if dtype == jnp.bool_:
        return jnp.ones(shape, dtype)
    if dtype == jnp.uint32:
        return jnp.asarray(np.linspace(0, 2**32 - 1, int(np.prod(shape))).astype(np.uint32).reshape(shape))
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(rng.integers(1, _NUM_ROWS, shape) if shape else 0, dtype)
    return jax.random.uniform(jax.random.key(int(rng.integers(2**31))), shape, dtype, 0.05, 0.15)
