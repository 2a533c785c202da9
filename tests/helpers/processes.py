"""Several processes of one command on this machine, each with its own CPU devices."""

import os
import pathlib
import socket
import subprocess
import sys

from tests.helpers import paths


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(num_devices):
    """The environment of a process with so many devices, and the library of this checkout."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    return os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(paths.ROOT),
    }


def start(module, options, folder, *, count, num_devices=1):
    """Starts a command in several processes; `folder` gets what each prints."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"localhost:{free_port()},{count}"
    started = []
    for index in range(count):
        together = ["--distributed", f"{address},{index}"] if count > 1 else []
        with (folder / f"{index}.out").open("w") as out, (folder / f"{index}.err").open("w") as errors:
            command = [sys.executable, "-m", module, *options, *together]
            options_of_process = {"env": environment(num_devices), "cwd": paths.ROOT}
            started.append(subprocess.Popen(command, stdout=out, stderr=errors, **options_of_process))
    return started


def wait(started, *, timeout=600):
    """The exit codes; what still runs after so many seconds is ended, which fails the test."""
    try:
        return [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()


def printed(folder: pathlib.Path, suffix="err"):
    """What each process has printed."""
    return [file.read_text() for file in sorted(folder.glob(f"*.{suffix}"))]
