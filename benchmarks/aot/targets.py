"""The accelerators that programs are compiled for, by the published figures of each."""

import dataclasses
import functools
import importlib.metadata
import os
import string
from collections.abc import Mapping
from typing import Any

import numpy as np

PLATFORMS = ("tpu", "gpu")
"""Platforms; a process compiles for one of them, since each compiler registers itself in the process."""

ENVIRONMENT = {
    # JAX itself runs on the CPU; the accelerators' compilers are called for a topology only.
    "JAX_PLATFORMS": "cpu",
    # libtpu asks the metadata server of a TPU machine, which is not there, and waits for it.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # A second process would otherwise end on libtpu's lock file.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Environment of a process that compiles without a device; to be set before JAX is imported."""


@dataclasses.dataclass(frozen=True)
class Target:
    """An accelerator.

    Attributes:
        name: short name, such as "v5e".
        platform: "tpu" or "gpu".
        bandwidth: of its memory, bytes per second.
        memory: bytes that a program can use.
        flops: peak rate of bfloat16 products, operations per second.
        clock: cycles per second, in which a TPU's compiler states its estimates.
        shapes: number of devices → name of the topology.
        config: a GPU's properties, see :func:`_gpu_config`.
    """

    name: str
    platform: str
    bandwidth: float
    memory: float
    flops: float
    clock: float
    shapes: Mapping[int, str] = dataclasses.field(default_factory=lambda: {1: "1x1x1", 8: "1x1x8"})
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def devices(self, num: int = 1) -> Any:
        """Returns devices to compile for, ``[num]``; no such device need be there.

        Args:
            num: 1 or 8.

        Raises:
            RuntimeError: the compiler of the platform is not installed.
        """
        return np.asarray(_topology(self.name, self.shapes[num]).devices[:num])


def _gpu(name: str, description: str, bandwidth: float, memory: int, l2_cache: int) -> Target:
    """Returns a Hopper GPU; NVIDIA's data sheets state the figures, except for the L2 cache and clock of the H200."""
    config = {"description": description, "bandwidth": int(bandwidth), "memory": memory, "l2_cache": l2_cache}
    # JAX leaves a quarter of a GPU's memory to other libraries.
    return Target(name, "gpu", bandwidth, 0.75 * memory, 989e12, 1.98e9, config=config)


TARGETS = {
    target.name: target
    for target in (
        Target("v5e", "tpu", 819e9, 15.75 * 2**30, 197e12, 1.5e9, {1: "v5e:2x2", 8: "v5e:2x4"}),
        Target("v5p", "tpu", 2765e9, 95 * 2**30, 459e12, 1.75e9, {1: "v5p:2x2x1", 8: "v5p:2x2x2"}),
        Target("v6e", "tpu", 1640e9, 31.25 * 2**30, 918e12, 1.75e9, {1: "v6e:2x2", 8: "v6e:2x4"}),
        _gpu("h100", "NVIDIA H100 80GB HBM3", 3352.32e9, 84_978_434_048, 52_428_800),
        _gpu("h200", "NVIDIA H200", 4800e9, 150_754_820_096, 62_914_560),
    )
}
"""Name → accelerator. Sources: the vendors' pages of each; a TPU's usable memory is what its compiler says it is."""

_GPU_CONFIG = string.Template("""
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: $bandwidth
  l2_cache_size: $l2_cache
  clock_rate_ghz: 1.98
  device_memory_size: $memory
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
device_description_str: "$description"
""")


@functools.cache
def _topology(name: str, shape: str) -> Any:
    from jax.experimental import topologies

    target = TARGETS[name]
    if target.platform == "tpu":
        return topologies.get_topology_desc(platform="tpu", topology_name=shape)
    config = _GPU_CONFIG.substitute(target.config)
    return topologies.get_topology_desc(platform="cuda", topology_name=shape, topology=shape, target_config=config)


def missing_compiler(platform: str) -> str | None:
    """Returns what to install for a platform's compiler, or None where it is installed.

    Args:
        platform: "tpu" or "gpu".
    """
    packages = {"tpu": ("libtpu",), "gpu": ("jax-cuda12-plugin", "jax-cuda13-plugin")}[platform]
    if any(_version(package) for package in packages):
        return None
    return f"no compiler for {platform} is installed; expected pip install 'alkd_jax[aot-tpu-gpu]'"


def versions() -> dict[str, str]:
    """Returns the versions of JAX and of the compilers that are installed."""
    packages = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
    return {package: version for package in packages if (version := _version(package))}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiler_environment() -> dict[str, str]:
    """Returns the environment of a process that compiles: the current one and :data:`ENVIRONMENT`."""
    return {**os.environ, **ENVIRONMENT}
