"""Parameters on disk, as Orbax checkpoints: arrays only, nothing executable."""

import pathlib

import jax
import orbax.checkpoint as ocp

from alkd_jax.models import Encoder, Params, init_params


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
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
