"""The folder of a run: each stage reads and writes named files in it, and runs again only when its inputs have changed.

One process at a time works in a folder; other processes may read it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alkd_jax.io import read_json, write_json
from alkd_jax.locks import LOCK, lock_folder, unlock_folder

IDENTITY_FILE = "run.json"
STAGES_FILE = "stages.json"
EARLIER_STAGES_FILE = "hops.json"
"""Versions up to 0.1.0 recorded a run's stages in this file."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: the folder.
        announce: takes a line for every stage that runs or whose outputs are reused.
    """

    path: pathlib.Path
    announce: Callable[[str], None]

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

    def _check_identity(self, identity: Mapping[str, Any], defaults: Mapping[str, Any] | None) -> None:
        """Raises ValueError unless the folder holds the run with this identity."""
        identity_file = self.path / IDENTITY_FILE
        if not identity_file.exists():
            raise ValueError(f"{self.path} has no {IDENTITY_FILE}; expected the folder of a run")
        stored = {**(defaults or {}), **read_json(identity_file)}
        if stored != dict(identity):
            names = sorted(k for k in stored.keys() | identity.keys() if stored.get(k) != identity.get(k))
            differences = "; ".join(f"{name} is {stored.get(name)!r}, not {identity.get(name)!r}" for name in names)
            raise ValueError(f"{self.path} holds another run ({differences}); choose another folder")

    def _refuse_foreign_files(self) -> None:
        """Raises ValueError where the folder holds files although no run was started in it."""
        if any(path.name != LOCK for path in self.path.iterdir()):
            raise ValueError(f"{self.path} holds files that belong to no run; choose another folder")

    @property
    def finished_stages(self) -> dict[str, dict[str, Any]]:
        """The record of each finished stage, by name: "digest" of its inputs, "outputs", "seconds"."""
        record_file = self.path / STAGES_FILE
        return read_json(record_file) if record_file.exists() else {}

    def run_stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        write_outputs: Callable[[pathlib.Path], None],
        *,
        after: Sequence[str] = (),
    ) -> None:
        """Runs one stage unless it has run on the same inputs and its outputs exist.

        Args:
            name: of the stage.
            inputs: options that the stage depends on, plain JSON values.
            outputs: files and folders that the stage writes, relative to the run's folder.
            write_outputs: takes a temporary folder and writes the outputs into it; they are moved into the run's folder
                when all are written.
            after: stages whose outputs this stage reads; it runs again when they have run on other inputs.
        """
        finished = self.finished_stages
        earlier_digests = {earlier: finished[earlier]["digest"] for earlier in after}
        content = json.dumps({"inputs": dict(inputs), "after": earlier_digests}, sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        record = finished.get(name)
        if record and record["digest"] == digest and all((self.path / output).exists() for output in outputs):
            self.announce(f"{name}: reused from an earlier run, which took {record['seconds']:.1f} s")
            return
        start = time.perf_counter()
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            write_outputs(partial)
            self._move_outputs(name, partial, outputs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        seconds = time.perf_counter() - start
        record = {"digest": digest, "outputs": list(outputs), "seconds": round(seconds, 3)}
        others = {other: stage for other, stage in self.finished_stages.items() if other != name}
        write_json(self.path / STAGES_FILE, others | {name: record})
        self.announce(f"{name}: {seconds:.1f} s")

    def _move_outputs(self, name: str, partial: pathlib.Path, outputs: Sequence[str]) -> None:
        """Replaces the stage's former outputs.

        The stage's record is deleted before, so that after a crash in between the stage just runs again.
        """
        finished = self.finished_stages
        if name in finished:
            del finished[name]
            write_json(self.path / STAGES_FILE, finished)
        for output in outputs:
            final = self.path / output
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(partial / output, final)


def refuse_earlier_version(path: pathlib.Path) -> None:
    """Raises ValueError where a folder holds a run of an earlier version, whose files have other names."""
    if (path / EARLIER_STAGES_FILE).exists():
        raise ValueError(f"{path} was made by an earlier version; choose another folder")
