"""Parameters and unfinished training on disk, as Orbax checkpoints, which hold arrays and no executable code."""

import contextlib
import dataclasses
import glob
import logging
import os
import pathlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import multihost_utils

from alkd_jax.checks import check_count
from alkd_jax.errors import reading, writing
from alkd_jax.locks import lock_folder, unlock_folder
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.training.digests import check_digests, write_digests
from alkd_jax.training.fingerprint import STEPS, claim_folder

Curves: TypeAlias = Sequence[Sequence[Any]]
"""Plain numbers, or lists of them, with one entry for each validation."""


def save_params(path: pathlib.Path, params: Params) -> None:
    """Writes a parameter tree to a folder, which appears complete or not at all.

    Args:
        path: a folder that does not exist yet.
        params: parameters, with or without a leading seed axis.

    Raises:
        ValueError: the folder exists.
        OSError: there is no room for it.
    """
    path = path.absolute()
    if path.exists():
        raise ValueError(f"{path} exists; expected a new folder")
    import orbax.checkpoint as ocp

    handler = _with_digests(ocp.StandardCheckpointHandler())
    try:
        with writing(path, size=_num_bytes(params)), _without_noise(), ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(path, args=ocp.args.StandardSave(params))
    except BaseException:
        for partial in path.parent.glob(f"{glob.escape(path.name)}.orbax-checkpoint-tmp*"):
            shutil.rmtree(partial, ignore_errors=True)
        raise


def restore_params(path: pathlib.Path, model: Encoder, *, seeds: int | None = None) -> Params:
    """Reads parameters that :func:`save_params` wrote, to the first device of this process.

    Args:
        path: the folder.
        model: the backbone that the parameters belong to.
        seeds: S of the leading seed axis; None where there is none.

    Raises:
        ValueError: the folder is missing or damaged, or holds parameters of other names or shapes than the model's.
    """
    path = path.absolute()
    if not (path / "_METADATA").is_file():
        raise ValueError(f"{path} is missing or not a checkpoint; expected a folder that save_params wrote")
    check_digests(path)
    seed_axis = () if seeds is None else (seeds,)
    import orbax.checkpoint as ocp

    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(seed_axis + leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        with reading(path, expected="an undamaged folder of save_params"):
            saved = shapes_by_path(checkpointer.metadata(path).item_metadata.tree)
        # The shapes are compared first: a restore that fails inside Orbax leaves an event loop open.
        if saved != shapes_by_path(target):
            message = f"{path} holds {saved}; expected {shapes_by_path(target)} for {model}"
            raise ValueError(message.replace("\n", " "))
        with reading(path, expected="an undamaged folder of save_params"):
            return checkpointer.restore(path, target)


def _alone() -> Any:
    """Returns options of Orbax for what a process does without the others, if there are any."""
    import orbax.checkpoint as ocp

    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _with_digests(handler: Any) -> Any:
    """Returns an Orbax handler that also stores the digests of its files, before its folder appears as a whole."""
    finalize = handler.finalize

    def finalize_and_digest(directory: Any) -> None:
        finalize(directory)
        if jax.process_index() == 0:
            # Orbax notes the time in this file later.
            write_digests(pathlib.Path(directory), without="_CHECKPOINT_METADATA")

    handler.finalize = finalize_and_digest
    return handler


def shapes_by_path(tree: Params) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a tree, or of its metadata, by its path."""
    return {name: tuple(leaf.shape) for name, leaf in leaves_by_path(tree).items()}


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@dataclasses.dataclass(frozen=True)
class TrainingFolder:
    """A folder for the checkpoints of an unfinished training run.

    Attributes:
        path: the folder; it holds nothing else and is created if it does not exist.
        every: number of validations between two checkpoints.
        keep: number of checkpoints to keep; older ones are deleted.
        interrupted: is asked after each validation whether to save a checkpoint and to end with KeyboardInterrupt.
    """

    path: pathlib.Path
    every: int = 10
    keep: int = 2
    interrupted: Callable[[], bool] | None = None


@dataclasses.dataclass(frozen=True)
class TrainingCheckpointer:
    """Saves and restores the states of one training run in an open :class:`TrainingFolder`.

    Attributes:
        folder: the training folder; its path is absolute.
        manager: Orbax's checkpoint manager.
        template: shapes, types and shardings of a state.
    """

    folder: TrainingFolder
    manager: Any
    template: Any

    def restore(self) -> tuple[Any, Curves] | None:
        """Returns the newest undamaged state and its curves; None where nothing is saved yet.

        Damaged states that are newer are moved out of the way, with a warning. Of several processes, the first one
        decides for all which states there are and which are damaged.

        Raises:
            ValueError: every saved state is damaged.
        """
        damaged: dict[int, str] = {}
        for step in _of_first_process(sorted(self.manager.all_steps(), reverse=True)):
            try:
                restored = self._read(step)
            except ValueError as error:
                damaged[step] = str(error)
                continue
            for number, reason in damaged.items():
                moved = f"the checkpoint of step {number} is now {self._set_aside(number)}"
                warnings.warn(f"{reason}; {moved}, and training continues from step {step}", stacklevel=2)
            return restored
        if damaged:
            raise ValueError(f"{'; '.join(damaged.values())}; remove {self.folder.path} to start from the beginning")
        return None

    def _read(self, step: int) -> tuple[Any, Curves]:
        """Returns the state of a step and its curves.

        Raises:
            ValueError: they are damaged.
        """
        import orbax.checkpoint as ocp

        folder = self.folder.path / STEPS / str(step)
        has_digests = _check_in_first_process(folder)
        leaves = leaves_by_path(self.template)
        # Not strict: a table saved on another mesh may be padded to another number of rows.
        state = ocp.args.StandardRestore({name: _restore_target(leaf) for name, leaf in leaves.items()}, strict=False)
        # What Orbax raises about undamaged files, such as a lack of memory, is no sign of damage.
        with contextlib.nullcontext() if has_digests else reading(folder, expected="an undamaged checkpoint"):
            restored = self.manager.restore(step, args=ocp.args.Composite(state=state, curves=ocp.args.JsonRestore()))
            values = [restored["state"][name] for name in leaves]
            return jax.tree.unflatten(jax.tree.structure(self.template), values), restored["curves"]["curves"]

    def _set_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged state out of the way of the one that will be saved after the same step."""
        aside = self.folder.path / f"damaged_{step}"
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(self.folder.path / STEPS / str(step), aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {aside}")
        self.manager.reload()
        return aside

    def is_due(self, number: int) -> bool:
        """Whether the state after this validation, counted from 1, is to be saved."""
        return number % self.folder.every == 0

    def is_interrupted(self) -> bool:
        """Whether training is to end after its state is saved, in every process if one of them is asked to."""
        asked = self.folder.interrupted is not None and self.folder.interrupted()
        return bool(multihost_utils.process_allgather(np.array(asked)).any()) if jax.process_count() > 1 else asked

    def save(self, step: int, state: Any, curves: Curves) -> None:
        """Saves a state, unless one of this step is saved already.

        Args:
            step: steps taken so far.
            state: the state; a checkpointer that saves in the background reads its arrays after this call returns, so
                they must not be donated then.
            curves: the learning curves up to this step.
        """
        import orbax.checkpoint as ocp

        if step in self.manager.all_steps():
            return
        state_args = ocp.args.StandardSave(leaves_by_path(state))
        curves_args = ocp.args.JsonSave({"curves": curves})
        with writing(self.folder.path, size=_num_bytes(self.template)):
            self.manager.save(step, args=ocp.args.Composite(state=state_args, curves=curves_args))


def _of_first_process(numbers: Sequence[int]) -> list[int]:
    """Returns the numbers that the first process has, of which there may be at most 64 where there are others."""
    if jax.process_count() == 1:
        return list(numbers)
    padded = np.full(64, -1, np.int32)
    padded[: len(numbers)] = numbers[: len(padded)]
    found = multihost_utils.broadcast_one_to_all(padded)
    return [int(number) for number in found if number >= 0]


def _check_in_first_process(folder: pathlib.Path) -> bool:
    """Returns whether the parts of a checkpoint have digests, which the first process compares with their files.

    Raises:
        ValueError: they differ.
    """
    reason, found = f"{folder} is damaged", [-1]
    if jax.process_index() == 0:
        try:
            found = [int(all([check_digests(folder / part) for part in ("state", "curves")]))]
        except ValueError as error:
            reason, found = str(error), []
    match _of_first_process(found):
        case [has_digests]:
            return bool(has_digests)
    raise ValueError(reason)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Suppresses what Orbax logs about errors, since it also raises them, and that it has no files to merge.

    After an error that goes on: threads of a failed save log it, and call a closed event loop, until the process ends.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return not record.exc_info and "Skipping merge of OCDBT" not in record.getMessage()

    def report_others(event: Any) -> None:
        if str(event.exc_value) != "Event loop is closed":
            report(event)

    logger, report = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_other)
    sys.unraisablehook = report_others
    yield
    logger.removeFilter(is_other)
    sys.unraisablehook = report


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _restore_target(leaf: Any) -> Any:
    """Returns what Orbax restores an array to: a NumPy array on the host, or an array with the template's sharding."""
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _handlers(template: Any, *, in_background: bool) -> dict[str, Any]:
    """Returns Orbax handlers of states and curves; what is not saved in the background is taken to fill the memory."""
    import orbax.checkpoint as ocp

    options = {}
    if not in_background:
        largest_gb = -(-max(map(_num_bytes, jax.tree.leaves(template))) // 10**9)
        # Every array gets a file of its own, since a common OCDBT file would be assembled in memory; at a time no more
        # is written or read than the largest array takes. Arrays are not split into chunks: chunks have to divide the
        # rows evenly, and 10^7 + 1 rows are 11 times 909,091.
        options = {"use_ocdbt": False, "save_concurrent_gb": largest_gb, "restore_concurrent_gb": largest_gb}
    state = ocp.StandardCheckpointHandler(**options)
    return {"state": _with_digests(state), "curves": _with_digests(ocp.JsonCheckpointHandler())}


@contextlib.contextmanager
def open_checkpoints(
    folder: TrainingFolder, fingerprint: Mapping[str, Any], template: Any, *, in_background: bool = True
) -> Iterator[TrainingCheckpointer]:
    """Opens a training folder; when the context ends, it waits until the last state is written.

    ``fingerprint.json`` in the folder identifies the training run and records the versions of the packages. Every
    saved state has a file of digests, by which a damaged one is recognized.

    Args:
        folder: the folder.
        fingerprint: plain values that distinguish this training run from others, see :func:`claim_folder`.
        template: a state, or the shapes, types and shardings of one; leaves that are NumPy arrays are restored to the
            host.
        in_background: whether training continues while a state is saved. False takes less memory: training waits, and
            no copy of the state is made.

    Yields:
        What saves and restores states.

    Raises:
        ValueError: the folder holds another training run, or another process trains in it; or an option is below 1.
        OSError: there is no room for a state, while this waits for it; the states saved before stay.
    """
    import orbax.checkpoint as ocp

    check_count(1, every=folder.every, keep=folder.keep)
    path = folder.path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        claim_folder(path, fingerprint)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=folder.keep, cleanup_tmp_directories=True, enable_async_checkpointing=in_background
        )
        handlers = _handlers(template, in_background=in_background)
        with _without_noise():
            manager = ocp.CheckpointManager(path / STEPS, options=options, item_handlers=handlers)
            try:
                yield TrainingCheckpointer(dataclasses.replace(folder, path=path), manager, template)
            finally:
                with writing(path, size=_num_bytes(template)):
                    manager.close()


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Keeps other trainings out of a folder; of several processes that train together, the first one has the lock."""
    if jax.process_index() != 0:
        yield
        return
    if not lock_folder(path):
        raise ValueError(f"{path} is in use by another training of this process; choose another folder")
    try:
        yield
    finally:
        unlock_folder(path)
