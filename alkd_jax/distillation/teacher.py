"""A conventional teacher, and what the methods compute from it once, before the student trains."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax import scoring
from alkd_jax.models import Encoder, Params, check_params
from alkd_jax.training.examples import sequences_of
from alkd_jax.types import PAD, Rankings, Sequences, Sessions

_ENCODE_BATCH = 1024
"""Sessions encoded at a time."""


@flax.struct.dataclass
class TeacherModel:
    """A trained backbone that a student learns from.

    Attributes:
        model: the teacher's backbone.
        params: its parameters, without a seed axis.
    """

    model: Encoder = flax.struct.field(pytree_node=False)
    params: Params


@flax.struct.dataclass
class TeacherEmbeddings:
    """A teacher's embeddings.

    Attributes:
        sessions: ``[N, T]`` the session vector u of every training session.
        items: ``[V1, T]`` the output item table Y, V1 = V + 1; row 0 is padding.
    """

    sessions: Float[Array, "N T"]
    items: Float[Array, "V1 T"]


def encode_teacher(teacher: TeacherModel, train: Sessions) -> TeacherEmbeddings:
    """Encodes every training session with the teacher, and looks up all items.

    Raises:
        ValueError: a parameter of the teacher is not finite or of another model.
    """
    check_params(teacher.model, teacher.params)
    batches = _slices(len(train), _ENCODE_BATCH)
    sessions = [_encode(teacher, train.items[rows], train.mask[rows]) for rows in batches]
    items = teacher.model.apply(teacher.params, method="item_embeddings")
    return TeacherEmbeddings(jnp.concatenate(sessions), jnp.asarray(items))


@jax.jit
def _encode(teacher: TeacherModel, items: Array, mask: Array) -> Array:
    return teacher.model.apply(teacher.params, items, mask)


def all_session_items(train: Sessions, sequences: Sequences | None) -> Int[np.ndarray, "N L"]:
    """Puts every item of every training session into one array, targets included.

    Args:
        train: the training sessions, N of them.
        sequences: the same sessions at full length; by default the items that ``train`` holds.

    Returns:
        ``[N, L]`` int32 items, L the length of the longest session; 0 fills shorter ones.

    Raises:
        ValueError: the number of sequences is not the number of sessions.
    """
    sequences = sequences_of(train) if sequences is None else sequences
    if len(sequences) != len(train):
        raise ValueError(f"sequences has {len(sequences)} sessions; expected the {len(train)} of train")
    offsets = np.asarray(sequences.offsets)
    position = offsets[:-1, None] + np.arange(np.diff(offsets).max())
    valid = position < offsets[1:, None]
    return np.where(valid, np.asarray(sequences.items)[np.where(valid, position, 0)], PAD).astype(np.int32)


def teacher_lists(
    teacher: TeacherEmbeddings,
    k: int,
    exclude: Int[np.ndarray, "N L"],
    *,
    table: Array | None = None,
    batch_size: int = 1024,
) -> Int[np.ndarray, "N K"]:
    """Lists the teacher's k best items for every training session.

    Args:
        teacher: the teacher's embeddings.
        k: K, length of the lists.
        exclude: items that a session's list leaves out; 0 fills shorter rows.
        table: rows of an item table to rank, row 0 padding; by default the teacher's.
        batch_size: sessions ranked at a time.

    Returns:
        ``[N, K]`` int32 rows of the table, best first; 0 where fewer are left.
    """
    table = teacher.items if table is None else table
    batches = _slices(len(exclude), batch_size)
    excluded = jnp.asarray(exclude)
    lists = [scoring.top_k(teacher.sessions[rows], table, k, exclude=excluded[rows])[1] for rows in batches]
    ids = np.concatenate([np.asarray(ids) for ids in lists])
    return np.asarray(Rankings.from_top_k(np.arange(len(ids)), ids).items)


def _slices(length: int, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, length, batch_size)]
