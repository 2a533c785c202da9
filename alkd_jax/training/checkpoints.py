"""Parameters and unfinished training on disk, as Orbax checkpoints, which hold arrays and no executable code."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from alkd_jax.checks import check_at_least
from alkd_jax.io import read_json, write_json
from alkd_jax.models import Encoder, Params, init_params

FINGERPRINT = "fingerprint.json"
"""The file of a training folder that identifies the training run."""

_FORMER_FINGERPRINT = "identity.json"
"""Its name in folders that alkd_jax wrote before; their checkpoints cannot be read any more."""

_JAXPR_DIGESTS = {"loss", "initializer", "optimizer", "row_optimizer"}
"""The values of a fingerprint that are digests of jaxprs, which differ from version to version of the packages."""

Curves: TypeAlias = Sequence[Sequence[Any]]
"""Plain numbers, or lists of them, with one entry for each validation."""


def save_params(path: pathlib.Path, params: Params) -> None:
    """Writes a parameter tree to a folder, which appears complete or not at all.

    Args:
        path: a folder that does not exist yet.
        params: parameters, with or without a leading seed axis.

    Raises:
        ValueError: the folder exists.
    """
    path = path.absolute()
    if path.exists():
        raise ValueError(f"{path} exists; expected a new folder")
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, params)


def restore_params(path: pathlib.Path, model: Encoder, *, seeds: int | None = None) -> Params:
    """Reads parameters that :func:`save_params` wrote.

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
    seed_axis = () if seeds is None else (seeds,)
    import orbax.checkpoint as ocp

    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(seed_axis + leaf.shape, leaf.dtype, sharding=sharding), shapes
    )
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            saved = shapes_by_path(checkpointer.metadata(path).item_metadata.tree)
        except Exception as error:
            raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        # The shapes are compared first: a restore that fails inside Orbax leaves an event loop open.
        if saved != shapes_by_path(target):
            message = f"{path} holds {saved}; expected {shapes_by_path(target)} for {model}"
            raise ValueError(message.replace("\n", " "))
        return checkpointer.restore(path, target)


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
    """

    path: pathlib.Path
    every: int = 10
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class TrainingCheckpointer:
    """Saves and restores the states of one training run in an open :class:`TrainingFolder`.

    Attributes:
        manager: Orbax's checkpoint manager.
        every: number of validations between two checkpoints.
        template: shapes, types and shardings of a state.
    """

    manager: Any
    every: int
    template: Any

    def restore(self) -> tuple[Any, Curves] | None:
        """Returns the newest saved state and its curves; None where nothing is saved yet."""
        import orbax.checkpoint as ocp

        newest = self.manager.latest_step()
        if newest is None:
            return None
        leaves = leaves_by_path(self.template)
        # Not strict: a table saved on another mesh may be padded to another number of rows.
        state = ocp.args.StandardRestore({name: _restore_target(leaf) for name, leaf in leaves.items()}, strict=False)
        restored = self.manager.restore(newest, args=ocp.args.Composite(state=state, curves=ocp.args.JsonRestore()))
        values = [restored["state"][name] for name in leaves]
        return jax.tree.unflatten(jax.tree.structure(self.template), values), restored["curves"]["curves"]

    def is_due(self, number: int) -> bool:
        """Whether the state after this validation, counted from 1, is to be saved."""
        return number % self.every == 0

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
        with _without_merge_warning():
            self.manager.save(step, args=ocp.args.Composite(state=state_args, curves=curves_args))


@contextlib.contextmanager
def _without_merge_warning() -> Iterator[None]:
    """Suppresses Orbax's warning at every save that there are no OCDBT files to merge."""

    def is_other(record: logging.LogRecord) -> bool:
        return "Skipping merge of OCDBT" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _restore_target(leaf: Any) -> Any:
    """Returns what Orbax restores an array to: a NumPy array on the host, or an array with the template's sharding."""
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _low_memory_handlers(template: Any) -> dict[str, Any]:
    """Returns Orbax handlers for a state so large that there is no memory for a second one."""
    import orbax.checkpoint as ocp

    largest_gb = -(-max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(template)) // 10**9)
    # Every array gets a file of its own, since a common OCDBT file would be assembled in memory; at a time no more is
    # written or read than the largest array takes. Arrays are not split into chunks: chunks have to divide the rows
    # evenly, and 10^7 + 1 rows are 11 times 909,091.
    state = ocp.StandardCheckpointHandler(
        use_ocdbt=False, save_concurrent_gb=largest_gb, restore_concurrent_gb=largest_gb
    )
    return {"state": state, "curves": ocp.JsonCheckpointHandler()}


@contextlib.contextmanager
def open_checkpoints(
    folder: TrainingFolder, fingerprint: Mapping[str, Any], template: Any, *, in_background: bool = True
) -> Iterator[TrainingCheckpointer]:
    """Opens a training folder; when the context ends, it waits until the last state is written.

    ``fingerprint.json`` in the folder identifies the training run and records the versions of the packages.

    Args:
        folder: the folder.
        fingerprint: plain values that distinguish this training run from others. "versions" is recorded and not
            compared; where it differs, digests of jaxprs ("loss", "initializer" and the optimizers) are not compared
            either, since they differ from version to version.
        template: a state, or the shapes, types and shardings of one; leaves that are NumPy arrays are restored to the
            host.
        in_background: whether training continues while a state is saved. False takes less memory: training waits, and
            no copy of the state is made.

    Yields:
        What saves and restores states.

    Raises:
        ValueError: the folder holds another training run, whose differences the error names, or one of an earlier
            version; or an option is below 1.
    """
    import orbax.checkpoint as ocp

    check_at_least(1, every=folder.every, keep=folder.keep)
    path = folder.path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    _claim_folder(path, fingerprint)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=folder.keep, cleanup_tmp_directories=True, enable_async_checkpointing=in_background
    )
    handlers = None if in_background else _low_memory_handlers(template)
    with ocp.CheckpointManager(path / "steps", options=options, item_handlers=handlers) as manager:
        yield TrainingCheckpointer(manager, folder.every, template)
        manager.wait_until_finished()


def _claim_folder(path: pathlib.Path, fingerprint: Mapping[str, Any]) -> None:
    """Writes the fingerprint to a new folder; refuses the folder of another training run."""
    file, choice = path / FINGERPRINT, "choose another folder, or remove this one to start from the beginning"
    if not file.exists():
        if (path / _FORMER_FINGERPRINT).exists():
            raise ValueError(f"{path} holds training that another version of alkd_jax began; {choice}")
        if (path / "steps").exists():
            raise ValueError(f"{path} holds checkpoints without {FINGERPRINT}; {choice}")
        if jax.process_index() == 0:
            write_json(file, dict(fingerprint))
        return
    saved = read_json(file)
    if not isinstance(saved, dict):
        raise ValueError(f"{file} is {type(saved).__name__}; expected a JSON object")
    ignored = {"versions"} | (_JAXPR_DIGESTS if saved.get("versions") != fingerprint["versions"] else set())
    differences = [
        f"{name} ({saved.get(name)} there, {value} here)"
        for name, value in fingerprint.items()
        if name not in ignored and saved.get(name) != value
    ]
    if differences:
        raise ValueError(f"{path} holds another training run, which differs in {', '.join(differences)}; {choice}")
