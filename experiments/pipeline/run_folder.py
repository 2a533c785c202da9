"""The folder of a run: each stage reads and writes named files in it, and runs again only when its inputs have changed.

One process at a time works in a folder; other processes may read it. Of several processes that compute one run, see
:mod:`experiments.pipeline.distributed`, that is process 0, and the others only compute.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alkd_jax.errors import shown
from alkd_jax.io import is_leftover, move_into, read_object, remove_leftovers, write_json
from alkd_jax.locks import LOCK, lock_folder, unlock_folder

from . import distributed, stage_records
from .stage_records import Records

IDENTITY_FILE = "run.json"
CONFIG_FILE = "config.json"
EARLIER_STAGES_FILE = "hops.json"
"""Versions up to 0.1.0 recorded a run's stages in this file."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
        announce: takes a line for every stage that runs or whose outputs are reused.
        watch: takes the name of a stage and shows that time passes while it runs.
        overwrite: whether results of finished stages may be replaced by those of other options, and damaged ones.
        run: plain values from which the other processes open the same run.
    """

    path: pathlib.Path
    announce: Callable[[str], None]
    watch: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    overwrite: bool = False
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def open(
        self, identity: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None, readonly: bool = False
    ) -> None:
        """Creates the folder, or checks that it holds the same run, and keeps other processes from working in it.

        Args:
            identity: what never changes in a folder: data, backbone, … Plain JSON values.
            defaults: the values of entries that a folder made before there was a choice does not have.
            readonly: only check, while another process may be working in the folder; the folder has to exist.

        Raises:
            ValueError: the folder holds another run, the run of an earlier version, or files that belong to no run, or
                another process works in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; expected a folder, or a path where nothing exists")
        refuse_earlier_version(self.path)
        if readonly:
            self._check_identity(identity, defaults)
            return
        if not (self.path / IDENTITY_FILE).exists() and self.path.is_dir():
            self._refuse_foreign_files()
        self.path.mkdir(parents=True, exist_ok=True)
        is_new = lock_folder(self.path)
        try:
            # Another process may have written the identity between the check above and the lock.
            if (self.path / IDENTITY_FILE).exists():
                self._check_identity(identity, defaults)
            else:
                self._refuse_foreign_files()
                write_json(self.path / IDENTITY_FILE, dict(identity))
        except BaseException:
            if is_new:
                unlock_folder(self.path)
            raise
        if is_new:
            remove_leftovers(self.path)

    def _check_identity(self, identity: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> None:
        """Raises ValueError unless the folder holds the run with this identity."""
        identity_file = self.path / IDENTITY_FILE
        if not identity_file.exists():
            raise ValueError(f"{self.path} has no {IDENTITY_FILE}; expected the folder of a run")
        try:
            stored = {**(defaults or {}), **read_object(identity_file)}
        except ValueError as error:
            raise ValueError(f"{error}; put back a copy of it, or choose another folder") from error
        if stored != dict(identity):
            names = sorted(k for k in stored.keys() | identity.keys() if stored.get(k) != identity.get(k))
            differences = "; ".join(
                f"{shown(name)[1:-1]} is {shown(stored.get(name))}, not {identity.get(name)!r}" for name in names
            )
            raise ValueError(f"{self.path} holds another run ({differences}); choose another folder")

    def _refuse_foreign_files(self) -> None:
        """Raises ValueError where the folder holds files although no run was started in it."""
        if any(path.name != LOCK and not is_leftover(path) for path in self.path.iterdir()):
            raise ValueError(f"{self.path} holds files that belong to no run; choose another folder")

    @property
    def finished_stages(self) -> Records:
        """The record of each finished stage, by name, see :data:`stage_records.Records`."""
        return stage_records.read_records(self.path)

    def refuse_replacing(self, planned: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuses options that would replace results of finished stages, unless the folder may be overwritten.

        Args:
            planned: stage → the inputs that it is to run on.

        Raises:
            ValueError: such options; the error lists stage, option, old and new value.
        """
        if self.overwrite:
            return
        if changes := stage_records.replaced_options(self.path, planned):
            raise ValueError(
                f"{self.path} holds finished results of other options, which would be replaced: {'; '.join(changes)}; "
                "expected the same options, --overwrite, or another folder"
            )

    def stage_digest(self, inputs: Mapping[str, Any], after: Sequence[str] = ()) -> str:
        """Returns the digest of what a stage depends on, see :meth:`run_stage`."""
        finished = self.finished_stages
        earlier_digests = {earlier: finished[earlier]["digest"] for earlier in after}
        content = json.dumps({"inputs": dict(inputs), "after": earlier_digests}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def run_stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        write_outputs: Callable[[pathlib.Path], None],
        *,
        after: Sequence[str] = (),
        together: Sequence[str] = (),
    ) -> None:
        """Runs one stage unless it has run on the same inputs and its outputs are there, as it wrote them.

        Args:
            name: of the stage.
            inputs: options that the stage depends on, plain JSON values.
            outputs: files and folders that the stage writes, relative to the run's folder.
            write_outputs: takes a temporary folder and writes the outputs into it; they are moved into the run's folder
                when all are written.
            after: stages whose outputs this stage reads; it runs again when they have run on other inputs.
            together: the method of the run that runs this stage, and its arguments, where all processes compute it.
                They are given the same temporary folder; only process 0 writes into it, except for Orbax.

        Raises:
            ValueError: an output was damaged or edited, or other options would replace it, and the folder may not be
                overwritten.
        """
        partial = self.path / f".{name}.partial"
        if not distributed.leads():
            distributed.meet()
            write_outputs(partial)
            return
        digest = self.stage_digest(inputs, after)
        if self._reuse(name, inputs, outputs, digest, is_first=not after):
            return
        start = time.perf_counter()
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if together:
            distributed.tell({"run": self.run, "stages": stage_records.state_of(self.path), "call": list(together)})
            distributed.meet()
        try:
            with self.watch(name):
                write_outputs(partial)
            sha256 = stage_records.digests_of(partial, list(outputs))
            # Without a record the stage just runs again after a crash between here and the end.
            stage_records.write_record(self.path, name, None)
            move_into(self.path, partial, outputs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        seconds = round(time.perf_counter() - start, 3)
        record = {"digest": digest, "inputs": dict(inputs), "outputs": list(outputs), "sha256": sha256}
        stage_records.write_record(self.path, name, record | {"seconds": seconds})
        self.announce(f"{name}: {seconds:.1f} s")

    def _reuse(
        self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str], digest: str, *, is_first: bool
    ) -> bool:
        """Whether a stage need not run; see :meth:`run_stage`."""
        record = self.finished_stages.get(name)
        if record is None or not all((self.path / output).exists() for output in {*outputs, *record["outputs"]}):
            return False
        if record["digest"] != digest:
            self.refuse_replacing({name: inputs})
            if is_first and "inputs" not in record and not self.overwrite:
                raise ValueError(
                    f"{self.path} holds the finished stage {name} of other options, which an earlier version did not "
                    "record; expected the same options, --overwrite, or another folder"
                )
            return False
        if (line := stage_records.damage(self.path, name, record)) is not None:
            if not self.overwrite:
                raise ValueError(line)
            self.announce(f"{line}; the stage runs again")
            return False
        line = f"{name}: reused from an earlier run, which took {record['seconds']:.1f} s"
        if "sha256" not in record:
            record |= {"inputs": dict(inputs), "sha256": stage_records.digests_of(self.path, record["outputs"])}
            stage_records.write_record(self.path, name, record)
            line += "; an earlier version recorded no digests of its files, which are recorded as they are now"
        self.announce(line)
        return True


def refuse_earlier_version(path: pathlib.Path) -> None:
    """Raises ValueError where a folder holds a run of an earlier version, whose files have other names."""
    if (path / EARLIER_STAGES_FILE).exists():
        raise ValueError(f"{path} was made by an earlier version; choose another folder")


def take_part(reopen: Callable[[str], Any], call: Mapping[str, Any]) -> None:
    """Takes part in a stage that process 0 runs.

    Args:
        reopen: function of the JSON of :attr:`RunFolder.run` that opens the same run for reading.
        call: as :meth:`RunFolder.run_stage` tells it.
    """
    run = reopen(json.dumps(call["run"]))
    stage_records.await_state(run.folder.path, call["stages"])
    method, *arguments = call["call"]
    getattr(run, method)(*arguments)


def config_of(path: pathlib.Path) -> pathlib.Path:
    """Returns the file with the settings of an existing run.

    Raises:
        ValueError: the folder holds no run or one of an earlier version.
    """
    config = path / CONFIG_FILE
    if not config.exists():
        raise ValueError(f"{path} has no {CONFIG_FILE}; expected a folder made by `reproduce` or `demo`")
    refuse_earlier_version(path)
    return config
