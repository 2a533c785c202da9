import numpy as np
import pytest

from alkd_jax import data
from alkd_jax.types import Sessions
from tests.helpers.cyclic_sessions import cyclic_sessions

FIELDS = ("items", "mask", "target", "session_id")


def numpy_sessions(num):
    sessions = cyclic_sessions(num, 0, 0)
    return Sessions(*(np.asarray(getattr(sessions, name)) for name in FIELDS))


def write(folder, sessions, *, num=None, size=40):
    blocks = [sessions.take(slice(start, start + size)) for start in range(0, len(sessions), size)]
    data.save_columns(folder, blocks, num=num or len(sessions), length=sessions.items.shape[1])


def test_columns_are_the_sessions_and_are_mapped(tmp_path):
    sessions = numpy_sessions(100)
    write(tmp_path / "new" / "folder", sessions)
    found = data.map_columns(tmp_path / "new" / "folder")
    for name in FIELDS:
        assert isinstance(getattr(found, name), np.memmap)
        np.testing.assert_array_equal(getattr(found, name), getattr(sessions, name))
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(f"{n}.npy" for n in FIELDS)


@pytest.mark.parametrize("num", [99, 101])
def test_another_number_of_sessions_is_refused_and_leaves_no_columns(tmp_path, num):
    with pytest.raises(ValueError, match=f"expected {num}"):
        write(tmp_path, numpy_sessions(100), num=num)
    with pytest.raises(FileNotFoundError):
        data.map_columns(tmp_path)
    write(tmp_path, numpy_sessions(100))
    assert len(data.map_columns(tmp_path)) == 100


def test_columns_are_not_replaced(tmp_path):
    write(tmp_path, numpy_sessions(50))
    with pytest.raises(ValueError, match=r"holds items\.npy; expected a folder without columns"):
        write(tmp_path, numpy_sessions(60))
    assert len(data.map_columns(tmp_path)) == 50


def test_what_is_no_column_is_refused(tmp_path):
    write(tmp_path, numpy_sessions(50))
    target = np.load(tmp_path / "target.npy")
    for wrong, message in ((target[:-1], "one number of sessions"), (target.astype(np.int64), "a column of int32")):
        np.save(tmp_path / "target.npy", wrong)
        with pytest.raises(ValueError, match=message):
            data.map_columns(tmp_path)
    np.save(tmp_path / "target.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"target\.npy: cannot be read"):
        data.map_columns(tmp_path)
