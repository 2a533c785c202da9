"""Many devices: what a mesh is made of, and, in processes of their own, eight devices and two processes."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from alkd_jax import sharding

HERE = pathlib.Path(__file__).resolve().parent


def test_a_mesh_is_read_from_a_text():
    assert sharding.parse("data=2,model=4") == {"data": 2, "model": 4}
    assert sharding.parse(" model=3") == {"data": 1, "model": 3}
    for wrong in ("", "data", "data=0", "data=-1", "rows=2", "data=2,data=2", "data=2;model=4", "model=²"):
        with pytest.raises(ValueError, match="expected numbers from 1, as in 'data=2,model=4'"):
            sharding.parse(wrong)


def test_a_mesh_needs_its_devices():
    assert dict(sharding.make("data=1").shape) == {"data": 1, "model": 1}
    needed = 2 * len(jax.devices())
    with pytest.raises(
        ValueError, match=rf"data=2,model={needed // 2} needs {needed} devices; there are {needed // 2}"
    ):
        sharding.make(f"data=2,model={needed // 2}")


def test_without_a_mesh_none_holds():
    assert sharding.active() is None
    with sharding.using(None):
        assert sharding.active() is None
    with sharding.using(sharding.make("data=1")):
        assert dict(sharding.active().shape) == {"data": 1, "model": 1}
    assert sharding.active() is None


def test_eight_devices():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "on_eight_devices.py"]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
