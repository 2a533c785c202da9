"""A run is a folder of hops: each reads and writes named files, and is not run again while its inputs stand.

One process at a time works in a folder; others may look.
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

from alkd_jax.io import LOCK, lock_folder, read_json, unlock_folder, write_json


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """One run's folder.

    Attributes:
        path: where.
        announce: told a line for every hop that is run or reused.
    """

    path: pathlib.Path
    announce: Callable[[str], None]

    def open(self, identity: Mapping[str, Any], *, readonly: bool = False) -> None:
        """Makes the folder, or checks that it holds a run of the same thing; no other process can work in it then.

        Args:
            identity: what a folder never changes: data, backbone, … Plain JSON values.
            readonly: look only, while another process may be working in it; it has to be there.

        Raises:
            ValueError: the folder holds something else, or another process works in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; expected a folder or nothing")
        if readonly:
            self._check(identity)
            return
        if not (self.path / "run.json").exists() and self.path.is_dir():
            self._refuse_foreign()
        self.path.mkdir(parents=True, exist_ok=True)
        is_new = lock_folder(self.path)
        try:
            # Another process may have made it in between.
            if (self.path / "run.json").exists():
                self._check(identity)
            else:
                self._refuse_foreign()
                write_json(self.path / "run.json", dict(identity))
        except BaseException:
            if is_new:
                unlock_folder(self.path)
            raise

    def _check(self, identity: Mapping[str, Any]) -> None:
        """Raises ValueError unless the folder holds a run of this."""
        identity_file = self.path / "run.json"
        if not identity_file.exists():
            raise ValueError(f"{self.path} is no run's folder")
        held = read_json(identity_file)
        if held != dict(identity):
            names = sorted(k for k in held.keys() | identity.keys() if held.get(k) != identity.get(k))
            told = "; ".join(f"{name} is {held.get(name)!r}, asked {identity.get(name)!r}" for name in names)
            raise ValueError(f"{self.path} holds another run ({told}); choose another folder")

    def _refuse_foreign(self) -> None:
        """Raises ValueError where there are files, though no run was begun here."""
        if any(path.name != LOCK for path in self.path.iterdir()):
            raise ValueError(f"{self.path} holds files that are not a run's; choose another folder")

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What is recorded of each finished hop: its inputs' digest, outputs, seconds."""
        record = self.path / "hops.json"
        return read_json(record) if record.exists() else {}

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        work: Callable[[pathlib.Path], None],
        *,
        after: Sequence[str] = (),
    ) -> None:
        """Runs one hop unless it was run on the same inputs and its outputs are there.

        Args:
            name: of the hop.
            inputs: options it depends on, plain JSON values.
            outputs: files and folders it writes, relative to the folder.
            work: writes the outputs into the folder it is given; they are moved in place when all are there.
            after: hops whose outputs it reads; it is run again when they were run on other inputs.
        """
        recorded = self.stages
        chain = {earlier: recorded[earlier]["digest"] for earlier in after}
        told = json.dumps({"inputs": dict(inputs), "after": chain}, sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()
        done = recorded.get(name)
        if done and done["digest"] == digest and all((self.path / output).exists() for output in outputs):
            self.announce(f"{name}: kept from an earlier run ({done['seconds']:.1f} s then)")
            return
        began = time.perf_counter()
        partial = self.path / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            work(partial)
            self._put_in_place(name, partial, outputs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        seconds = time.perf_counter() - began
        record = {"digest": digest, "outputs": list(outputs), "seconds": round(seconds, 3)}
        earlier = {other: kept for other, kept in self.stages.items() if other != name}
        write_json(self.path / "hops.json", earlier | {name: record})
        self.announce(f"{name}: {seconds:.1f} s")

    def _put_in_place(self, name: str, partial: pathlib.Path, outputs: Sequence[str]) -> None:
        """Replaces the hop's former outputs, its record first, so that a crash in between only runs it again."""
        recorded = self.stages
        if name in recorded:
            del recorded[name]
            write_json(self.path / "hops.json", recorded)
        for output in outputs:
            final = self.path / output
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(partial / output, final)
