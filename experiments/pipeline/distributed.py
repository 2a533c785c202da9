"""Several processes that compute one run: process 0 leads, and the others take part in what it names.

Process 0 works as a single process does: it decides what is reused, asks language models, writes and prints. Where a
stage computes on all devices, it tells the others so through the key-value store of JAX's coordination service. They
then call the same function with the same arguments, and Orbax saves the part of each. So all agree on what is resumed.

A process that ends ends all others within seconds. Each renews a number in the store every second, by which process 0
notices one that was killed. One that ends by an error or by a signal says so. When process 0 ends, the others do. The
module imports JAX only where a process joins others.
"""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from alkd_jax.errors import printable, shown

from . import exits

_FORM = "auto, or HOST:PORT,COUNT,INDEX such as 10.0.0.1:8476,4,0"
_TICK, _SILENCE, _SAVING = 1.0, 10.0, 60.0
"""Seconds between two signs of life, without one until a process counts as ended, and to save after a signal."""
_CONNECTING, _HEARTBEAT, _PARTING = 120, 30, 30
"""Seconds of JAX: until all processes have to be there, for its own signs of life, and until all have to part."""
_STORE = "alkd_jax"
_LOST = "error: another process, or the way to it, was lost; run the same command again to continue"

_group: "_Group | None" = None


@dataclasses.dataclass(frozen=True)
class Address:
    """Where process 0 waits for the others.

    Attributes:
        coordinator: host and port of process 0.
        count: number of processes.
        index: of this process.
    """

    coordinator: str
    count: int
    index: int


def parse_address(text: str) -> Address | None:
    """Reads the option `--distributed`; None for `auto`, where JAX asks the launcher.

    Raises:
        ValueError: the text has another form.
    """
    if text == "auto":
        return None
    coordinator, *numbers = text.split(",")
    host, _, port = coordinator.rpartition(":")
    good = [number.isascii() and number.isdigit() for number in (port, *numbers)]
    if not host or len(numbers) != 2 or not all(good) or not 0 < int(port) < 2**16 or not int(numbers[0]):
        raise ValueError(f"--distributed is {shown(text)}; expected {_FORM}")
    count, index = map(int, numbers)
    if index >= count:
        raise ValueError(f"--distributed is {shown(text)}; expected an index below the count of {count} processes")
    return Address(coordinator, count, index)


def leads() -> bool:
    """Whether this process writes and prints: process 0, or the only one."""
    return _group is None or _group.index == 0


def tell(call: Mapping[str, Any]) -> None:
    """Tells the other processes, if there are any, what to take part in.

    Args:
        call: plain JSON values.
    """
    if _group is not None:
        _group.tell(call)


def meet() -> None:
    """Waits until all processes are here: the first computation that they share waits only half a minute for them."""
    if _group is not None:
        _group.meet()


def run(options: Any, work: Callable[[Any], object], take_part: Callable[[Mapping[str, Any]], object] | None) -> None:
    """Does the work of a command in this process, or in all processes that `--distributed` names.

    Args:
        options: of the command, with `distributed` and `mesh`. Without a mesh, several processes share batches among
            all their devices.
        work: function of the options, which process 0 calls.
        take_part: function of a call that :func:`tell` was given, which the others call; None where every process does
            the same work.

    Raises:
        ValueError: the option has another form, or the processes do not find each other.
    """
    if options.distributed is None:
        work(options)
        return
    group = _join(options.distributed)
    lines: list[str] = []
    say = exits.say if group.index == 0 else lines.append
    try:
        with exits.one_line_errors(continues=True, say=say):
            options = dataclasses.replace(options, mesh=group.connect_devices(options.mesh))
            if group.index == 0 or take_part is None:
                work(options)
            else:
                group.follow(take_part)
    except SystemExit as stop:
        group.leave(int(stop.code or 0), lines)
    except BaseException:
        # A process that ends breaks the computations that others share with it: then that is the error.
        time.sleep(_SILENCE + (2 if group.index == 0 else 6) * _TICK)
        traceback.print_exc()
        group.leave(1, ["error: it ended by a bug"])
    group.close()


def _join(text: str) -> "_Group":
    """Connects this process with the others.

    Raises:
        ValueError: as of :func:`run`.
    """
    import jax
    from jax._src import distributed as jax_distributed  # JAX documents no other way to its key-value store.

    global _group
    address = parse_address(text)
    # SIGTERM is handled by `interrupts`; JAX's service would replace that handler.
    jax.config.update("jax_enable_preemption_service", False)
    options: dict[str, Any] = {"initialization_timeout": _CONNECTING, "heartbeat_timeout_seconds": _HEARTBEAT}
    options["shutdown_timeout_seconds"] = _PARTING
    if address is not None:
        options |= {"coordinator_address": address.coordinator, "num_processes": address.count}
        options |= {"process_id": address.index, "cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError, OSError) as error:
        reason = printable(next(iter(str(error).splitlines()), ""), width=150)
        raise ValueError(
            f"--distributed is {shown(text)}, but the processes did not find each other ({reason}); expected {_FORM}, "
            f"the same in all processes but for INDEX, which start within {_CONNECTING} seconds"
        ) from error
    state = jax_distributed.global_state
    _group = _Group(state.client, state.process_id, state.num_processes)
    return _group


class _Group:
    """The processes of this command, seen from one of them.

    Args:
        client: of JAX's coordination service.
        index: of this process.
        count: number of processes.
    """

    def __init__(self, client: Any, index: int, count: int):
        self.index, self.count, self._client = index, count, client
        self._calls, self._meetings = itertools.count(), itertools.count()
        self._has_ended = threading.Event()
        _own_streams(is_shown=index == 0)
        if index > 0:
            warnings.simplefilter("ignore")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def tell(self, call: Mapping[str, Any] | None) -> None:
        """Sends a call to the others; None ends them."""
        self._set(f"call/{next(self._calls)}", call)

    def meet(self) -> None:
        """Waits until every process has called this as often."""
        place = f"met/{next(self._meetings)}"
        self._set(f"{place}/{self.index}", True)
        while len(self._get(place)) < self.count:
            time.sleep(_TICK / 4)

    def follow(self, take_part: Callable[[Mapping[str, Any]], object]) -> None:
        """Takes part in the calls of process 0 until it has finished."""
        while (call := self._hear()) is not None:
            take_part(call)

    def _hear(self) -> Any:
        key = f"{_STORE}/call/{next(self._calls)}"
        while True:
            try:
                # It returns to Python every second, which handles signals only there.
                return json.loads(self._client.blocking_key_value_get(key, int(1000 * _TICK)))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def close(self) -> None:
        """Parts from the others, after the work of all is done."""
        import jax

        if self.index == 0:
            self.tell(None)
        self.meet()
        self._has_ended.set()
        self._watcher.join()
        jax.distributed.shutdown()

    def connect_devices(self, sizes: str | None) -> str:
        """Computes sums along the axes of the mesh, which connects its devices while no process is far ahead.

        A first computation waits for other processes for half a minute on CPUs, however long they compile.

        Args:
            sizes: of the mesh; None for all devices along the data axis.

        Returns:
            The sizes.

        Raises:
            ValueError: there is no such mesh.
        """
        import jax
        import jax.numpy as jnp

        from alkd_jax import sharding

        # This waits until all processes have made their devices known.
        sizes = sizes or f"{sharding.DATA}={jax.device_count()}"
        mesh = sharding.make_mesh(sizes)
        self.meet()
        for axes in (sharding.DATA, sharding.MODEL, (sharding.DATA, sharding.MODEL)):
            add = functools.partial(jax.lax.psum, axis_name=axes)
            total = sharding.shard_map_unchecked(lambda add=add: add(jnp.ones(())), mesh, (), jax.P())
            jax.block_until_ready(jax.jit(total)())
        return sizes

    def leave(self, code: int, lines: list[str]) -> None:
        """Ends this process by an error or a signal, and with it all others.

        Args:
            code: exit code.
            lines: what process 0 prints about it.
        """
        if self.index == 0:
            self._end(code)
        self._set(f"left/{self.index}", {"code": code, "line": lines[-1] if lines else ""})
        time.sleep(_SAVING)
        _exit(code)

    def _end(self, code: int) -> None:
        self._set("ended/0", code)
        time.sleep(2 * _TICK)
        _exit(code)

    def _set(self, name: str, value: Any) -> None:
        self._client.key_value_set(f"{_STORE}/{name}", json.dumps(value), allow_overwrite=True)

    def _get(self, folder: str) -> dict[int, Any]:
        """Returns the values below a folder of the store."""
        found = self._client.key_value_dir_get(f"{_STORE}/{folder}/")
        return {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}

    def _watch(self) -> None:
        """Shows that this process lives, and ends it when another one has ended."""
        seen: dict[int, tuple[int, float]] = {}
        for number in itertools.count():
            if self._has_ended.wait(_TICK):
                return
            try:
                self._set(f"alive/{self.index}", number)
                if self.index == 0:
                    self._watch_others(seen)
                elif ended := self._get("ended"):
                    _exit(ended[0])
            except RuntimeError:
                if not self._has_ended.is_set():
                    exits.say(_LOST)
                    _exit(1)

    def _watch_others(self, seen: dict[int, tuple[int, float]]) -> None:
        now = time.monotonic()
        for index, value in self._get("alive").items():
            if seen.get(index, (None, 0.0))[0] != value:
                seen[index] = value, now
        for index, left in sorted(self._get("left").items()):
            if left["code"] in (exits.INTERRUPTED, exits.TERMINATED):
                # As if the signal had come to this process, which may be saving already.
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_SAVING)
            exits.say(f"process {index} of {self.count}: {left['line']}")
            self._end(left["code"])
        for index, (_, since) in seen.items():
            if now - since > _SILENCE:
                advice = "run the same command again to continue"
                exits.say(f"error: process {index} of {self.count} has ended without a word; {advice}")
                self._end(1)


def _own_streams(*, is_shown: bool) -> None:
    """Shows what Python prints, on the standard output only where it is to be shown, and little of what JAX's C++ does.

    C++ prints its connections on the standard output. When it loses the other processes, it prints a page and aborts
    this process, which Python cannot prevent: a child process makes one line of that page.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    shown_at = os.dup(sys.stdout.fileno() if is_shown else nowhere)
    sys.stdout = open(shown_at, "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(nowhere, 1)
    if (sed := shutil.which("sed")) is not None:
        shown_at = os.dup(sys.stderr.fileno())
        script = f"/coordination_service/d; /Terminating process because the JAX/{{s/.*/{_LOST}/; q}}"
        filter_of_lines = subprocess.Popen([sed, "-u", script], stdin=subprocess.PIPE, stdout=shown_at)
        assert filter_of_lines.stdin is not None
        sys.stderr = open(shown_at, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
        os.dup2(filter_of_lines.stdin.fileno(), 2)


def _exit(code: int) -> None:
    """Ends the process at once: what waits for another process, as a shared computation, cannot be interrupted."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
