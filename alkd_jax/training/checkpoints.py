"""Parameters and unfinished training on disk, as Orbax checkpoints: arrays only, nothing executable."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from alkd_jax.models import Encoder, Params, init_params

_PROGRAMS = {"loss", "draws", "optimizer", "row_optimizer"}
"""Of what a folder records: digests of programs, which differ from version to version."""

Curves: TypeAlias = Sequence[Sequence[Any]]
"""Plain numbers, or lists of them, that grow by one a validation."""


def save_params(path: pathlib.Path, params: Params) -> None:
    """Writes a parameter tree; the folder appears whole or not at all.

    Args:
        path: a folder that does not exist yet.
        params: with or without a leading seed axis.

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
    """Reads what :func:`save_params` wrote.

    Args:
        path: the folder.
        model: the backbone the parameters belong to; they must have its shapes.
        seeds: S of the leading seed axis; None where there is none.

    Raises:
        ValueError: the folder is missing, damaged, or holds another model's parameters.
    """
    path = path.absolute()
    if not (path / "_METADATA").is_file():
        raise ValueError(f"{path} is missing or no checkpoint; expected a folder that save_params wrote")
    lead = () if seeds is None else (seeds,)
    import orbax.checkpoint as ocp

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(lead + leaf.shape, leaf.dtype, sharding=here), shapes)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            held = named_shapes(checkpointer.metadata(path).item_metadata.tree)
        except Exception as error:
            raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        # Asked first: a restore that fails inside Orbax leaves an event loop behind.
        if held != named_shapes(target):
            raise ValueError(f"{path} holds {held}; {model} needs {named_shapes(target)}".replace("\n", " "))
        return checkpointer.restore(path, target)


def named_shapes(tree: Params) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a tree, or of its description, by its path."""
    return {name: tuple(leaf.shape) for name, leaf in by_path(tree).items()}


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@dataclasses.dataclass(frozen=True)
class TrainingFolder:
    """Where training in progress is kept.

    Attributes:
        path: a folder of its own; made if it is not there.
        every: validations from one saved state to the next.
        keep: saved states that stay.
    """

    path: pathlib.Path
    every: int = 10
    keep: int = 2


@dataclasses.dataclass(frozen=True)
class TrainingCheckpointer:
    """An open :class:`TrainingFolder`.

    Attributes:
        manager: Orbax's.
        every: validations from one saved state to the next.
        template: what is saved, described.
        in_background: whether training goes on while a state is saved.
    """

    manager: Any
    every: int
    template: Any
    in_background: bool

    def restore(self) -> tuple[Any, Curves] | None:
        """The newest saved state and its curves, or None at the start."""
        import orbax.checkpoint as ocp

        newest = self.manager.latest_step()
        if newest is None:
            return None
        named = by_path(self.template)
        # Not strict: a table saved on another mesh may be filled up to another number of rows.
        own = ocp.args.StandardRestore({name: _described(leaf) for name, leaf in named.items()}, strict=False)
        both = ocp.args.Composite(state=own, curves=ocp.args.JsonRestore())
        restored = self.manager.restore(newest, args=both)
        leaves = [restored["state"][name] for name in named]
        return jax.tree.unflatten(jax.tree.structure(self.template), leaves), restored["curves"]["curves"]

    def is_due(self, number: int) -> bool:
        """Whether the state after this validation, counted from 1, is to be saved."""
        return number % self.every == 0

    def save(self, step: int, state: Any, curves: Curves) -> None:
        """Saves the state now, where this step is not saved yet.

        Args:
            step: steps taken so far.
            state: what to save; in the background its arrays are read later, so they must not be donated.
            curves: what goes beside it.
        """
        import orbax.checkpoint as ocp

        if step in self.manager.all_steps():
            return
        own = ocp.args.StandardSave(by_path(state))
        with _without_a_common_file():
            self.manager.save(step, args=ocp.args.Composite(state=own, curves=ocp.args.JsonSave({"curves": curves})))


@contextlib.contextmanager
def _without_a_common_file() -> Iterator[None]:
    """Passes over Orbax's warning, at every save, that there is no common file to put together."""

    def is_other(record: logging.LogRecord) -> bool:
        return "Skipping merge of OCDBT" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _described(leaf: Any) -> Any:
    """What Orbax is to make of a saved array: one on the host as the template's, or one on its devices."""
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _sparing(template: Any) -> dict[str, Any]:
    """Orbax's handlers for a state beside which there is no room for another one."""
    import orbax.checkpoint as ocp

    most = -(-max(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(template)) // 10**9)
    # Arrays in files of their own: a common file would be put together in memory. No more is on its way at a time than
    # the largest of them. They are not cut: pieces have to divide the rows evenly, and 10^7 + 1 is 11 times 909,091.
    state = ocp.StandardCheckpointHandler(use_ocdbt=False, save_concurrent_gb=most, restore_concurrent_gb=most)
    return {"state": state, "curves": ocp.JsonCheckpointHandler()}


@contextlib.contextmanager
def open_checkpoints(
    folder: TrainingFolder, identity: Mapping[str, Any], template: Any, *, in_background: bool = True
) -> Iterator[TrainingCheckpointer]:
    """Opens a folder of training in progress; what is being saved is finished before it closes.

    ``identity.json`` in the folder says whose training it is, with the versions of what ran it.

    Args:
        folder: where.
        identity: plain values that tell this training from others; "versions" are noted, not compared, but where they
            differ neither are "loss", "draws" and the optimizers, whose programs differ from version to version.
        template: a state of this training, or its description, for the shapes and the devices to restore to; arrays of
            numpy stay on the host.
        in_background: training goes on while a state is saved; False has it wait, and takes no memory
            of a state's size.

    Raises:
        ValueError: the folder holds another training, with the differences named; or an option is below 1.
    """
    import orbax.checkpoint as ocp

    if folder.every < 1 or folder.keep < 1:
        raise ValueError(f"every is {folder.every}, keep is {folder.keep}; expected at least 1")
    path = folder.path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    _claim(path, identity)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=folder.keep, cleanup_tmp_directories=True, enable_async_checkpointing=in_background
    )
    handlers = None if in_background else _sparing(template)
    with ocp.CheckpointManager(path / "steps", options=options, item_handlers=handlers) as manager:
        yield TrainingCheckpointer(manager, folder.every, template, in_background)
        manager.wait_until_finished()


def _claim(path: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Writes whose folder this is, or refuses one that is another's."""
    file = path / "identity.json"
    if not file.exists():
        if (path / "steps").exists():
            raise ValueError(
                f"{path} holds checkpoints but no identity.json; expected a folder of training, or a new one"
            )
        if jax.process_index() == 0:
            partial = path / ".identity.json.partial"
            partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
            os.replace(partial, file)
        return
    try:
        theirs = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no record of a training: {error}") from error
    left_out = {"versions"} | (_PROGRAMS if theirs.get("versions") != identity["versions"] else set())
    differ = [
        f"{name} ({theirs.get(name)} there, {value} here)"
        for name, value in identity.items()
        if name not in left_out and theirs.get(name) != value
    ]
    if differ:
        told = f"{path} is the folder of another training, which differs in {', '.join(differ)}"
        raise ValueError(f"{told}; name another folder, or remove this one to begin anew")
