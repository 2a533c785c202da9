"""Which implementation a machine runs: chosen when a program is lowered, or a static argument decided on the host.

No other module outside `ops` and `sharding` asks for the platform's name. Where both implementations return the same
shapes, `cpu_or_device` leaves the choice to the lowering, so that a program compiled for another platform takes that
platform's branch. Where a shape or a schedule of the host depends on the answer, the functions below name the
decision, and the caller passes it on as a static argument.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax


def cpu_or_device(
    cpu: Callable[..., Any], device: Callable[..., Any], *, tpu: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """A function of arrays that runs `cpu` in programs lowered for a CPU and `device` in all others.

    It must be called inside `jax.jit`: the lowering then keeps one branch only. Called eagerly it would compile anew
    at every call.

    Args:
        cpu: A function of arrays (pytrees of them).
        device: The same function for any other platform; its results have the same shapes and dtypes.
        tpu: The same function for TPUs; by default `device`.

    Returns:
        The function of the same arrays.
    """
    others = {} if tpu is None else {"tpu": tpu}

    def on_the_lowered_platform(*args: Any) -> Any:
        return jax.lax.platform_dependent(*args, cpu=cpu, **others, default=device)

    return on_the_lowered_platform


def cuda_or_tpu_or_other(
    cuda: Callable[..., Any], tpu: Callable[..., Any], other: Callable[..., Any]
) -> Callable[..., Any]:
    """As `cpu_or_device`, a function of arrays that runs one of three by the platform that the program is lowered for.

    Args:
        cuda: The function for NVIDIA GPUs.
        tpu: The same function for TPUs.
        other: The same function for any other platform.
    """
    return functools.partial(jax.lax.platform_dependent, cuda=cuda, tpu=tpu, default=other)


def trains_seeds_in_turn(platform: str | None = None) -> bool:
    """Whether several seeds train faster one after the other than in one batched program: on a CPU and on a TPU.

    On a TPU one more axis makes the small arrays of a step larger than the memory beside the compute units. On a GPU
    all seeds together take as many kernels as one.

    Args:
        platform: The platform's name; by default that of the default device.
    """
    return _name(platform) in ("cpu", "tpu")


def has_own_memory() -> bool:
    """Whether the default device has memory of its own, apart from the host's."""
    return jax.default_backend() != "cpu"


def postpones_row_updates(platform: str | None = None) -> bool:
    """Whether row-sparse Adam, which postpones the updates of rows without a gradient, is faster: on a CPU.

    Elsewhere few operations are faster than small ones.

    Args:
        platform: The platform's name; by default that of the default device.
    """
    return _name(platform) == "cpu"


def tiles_memory(platform: str | None = None) -> bool:
    """Whether memory is tiled over the last two axes of an array: on a TPU.

    Rows that are narrower than a tile are then padded to it, unless tables of them are packed, see
    :mod:`alkd_jax.ops.packed_rows`.

    Args:
        platform: The platform's name; by default that of the default device.
    """
    return _name(platform) == "tpu"


def _name(platform: str | None) -> str:
    return jax.default_backend() if platform is None else platform
