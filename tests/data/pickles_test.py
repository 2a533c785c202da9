"""Pickles as plain data: what plain files say, and that hostile or damaged ones are refused."""

import hashlib
import json
import os
import pickle
import pickletools
import re
import string
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from alkd_jax.data import pandas_frames, pickles, torch_archives
from alkd_jax.data.pickles import Global
from tests.helpers.memory import peak_below
from tests.helpers.pickle_writer import (
    archive,
    call,
    dump,
    dumps,
    frame,
    integer_index,
    object_array,
    range_index,
    session_frame,
    state_dict,
    tensor,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
PLAIN = st.recursive(
    SCALARS,
    lambda nested: (
        st.lists(nested, max_size=4)
        | st.lists(nested, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-(2**59), 2**59), nested, max_size=4)
    ),
    max_leaves=12,
)
SESSIONS, LABELS = [["a", "b"], ["b"], ["c", "a", "b"]], ["c", "a", "d"]
TOY = dumps(session_frame(SESSIONS, LABELS))
STUDENT = state_dict({"w": np.arange(6).reshape(2, 3)})
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def replay(data, names=frozenset()):
    return pickles.read_pickle(data, allowed_names=names, source="toy")


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_come_back_from_every_protocol(value, protocol):
    assert replay(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=20), st.integers(3, pickle.HIGHEST_PROTOCOL))
def test_bytes_come_back(value, protocol):
    assert replay(pickle.dumps([value, value], protocol)) == [value, value]


def test_a_shared_list_stays_shared():
    inner = [1]
    first, second = replay(pickle.dumps([inner, inner]))
    assert first is second


class Bomb:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.system.__module__}.system"), (eval, "eval"), (getattr, "getattr"), (__import__, "__import__")],
)
def test_a_pickle_that_runs_code_is_refused_by_its_full_name(write, tmp_path, protocol, function, name):
    path = write(pickle.dumps(Bomb(function, f"open({str(tmp_path / 'ran')!r}, 'w')"), protocol))
    module = f"{function.__module__}." if protocol > 2 or function is os.system else "__builtin__."
    with pytest.raises(ValueError, match=r"file.*" + (module + name.removeprefix(module)).replace(".", r"\.")) as error:
        pandas_frames.read_frame(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


SLICE = Global("builtins.slice")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dump(call("builtins.slice", 1)) + b")R.", "calls a Call"),
        (b"X\x01\x00\x00\x00a)R.", "calls a str"),
        (dump(SLICE) + b"]R.", "calls a Global"),
        (dump(SLICE) + b"}b.", "sets the state of a Global"),
        (b"}}b.", "sets the state of a dict"),
        (dump(SLICE) + b"(K\x01e.", "appends to a Global"),
        (b"}(]K\x01u.", "under other keys"),
        (b"}(K\x01u.", "under other keys"),
        (dump(SLICE) + b"(K\x01K\x01u.", "under other keys"),
        (dump("numpy") + dump("ndarray.__reduce__") + b"\x93.", r"numpy\.ndarray\.__reduce__"),
        (dump(["numpy"]) + dump("dtype") + b"\x93.", "other than strings"),
        (b"\x82\x01.", "EXT1"),
        (b"(cbuiltins\nslice\no.", "OBJ"),
        (b"(ibuiltins\nslice\n.", "INST"),
        (dump(SLICE) + b")}\x92.", "NEWOBJ_EX"),
        (b"Pname\n.", "PERSID"),
        (b"K\x01K\x02.", "with 2 values"),
        (b"K\x01.more", "stops at byte 2 of 7"),
        (b"(K\x01.", "stops"),
        (b"K\x01\x86.", "a tuple of 2 from 1"),
        (b"h\x07.", "a value that it did not make"),
        (b"t.", "a value that it did not make"),
        (b"", "not a readable pickle"),
        (b"\x80\x06K\x01.", "its protocol is 6"),
        (b"\x95" + bytes(7) + b"\x7fK\x01.", "a frame of 9151314442816847872 bytes at byte 0"),
        (b"\x95\x04" + bytes(7) + b"\x95" + bytes(8) + b"K\x01.", "a frame of 0 bytes at byte 9"),
    ],
)
def test_allowed_names_cannot_be_put_to_another_use(data, message):
    with pytest.raises(ValueError, match=message):
        replay(data, frozenset({"builtins.slice", "numpy.ndarray", "numpy.dtype"}))


def test_a_huge_memo_index_costs_nothing():
    assert replay(b"]r\xff\xff\xff\x7f.") == []


@pytest.mark.parametrize(
    "repeated",
    [b"]", b"}", b"]\x94", b"(", b"(l", b"\x85", b"h\x00)R", b"h\x00)\x81", b"Q", b"r\xff\xff\x00\x00]", b"}K\x01Ns"],
    ids=repr,
)
def test_memory_is_bounded_by_the_files_size(repeated, monkeypatch):
    monkeypatch.setattr(pickles, "_SPARE_BYTES", 1 << 16)
    data = b"\x80\x04" + dump(SLICE) + b"q\x00" + repeated * (400_000 // len(repeated)) + b"."
    with pytest.raises(ValueError, match="not a readable pickle"), peak_below(40 * len(data)):
        replay(data, frozenset({"builtins.slice"}))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_short_lists_are_plain_data_however_many(protocol, monkeypatch):
    monkeypatch.setattr(pickles, "_SPARE_BYTES", 1 << 13)
    rows = (
        [[300 + row % 7] for row in range(1000)] + [[row, "ab"] for row in range(1000)] + [(row,) for row in range(50)]
    )
    data = pickle.dumps(rows, protocol)
    assert replay(data) == rows
    assert replay(pickletools.optimize(data)) == rows


def test_integers_that_collide_as_keys_are_refused():
    keys = b"".join(dump(number * (2**61 - 1)) + b"N" for number in range(1, 5))
    with pytest.raises(ValueError, match="short integers as keys"):
        replay(b"}(" + keys + b"u.")


@pytest.mark.parametrize(
    ("node", "repeated"),
    [
        (frame("a", [(object_array([["x"] * 300] * 300, 1, 300), 0, 1)], range_index(300)), ["x"] * 300),
        (
            frame(
                string.ascii_letters, [(object_array([1] * 999, 1, 999), n, n + 1) for n in range(52)], range_index(999)
            ),
            [1] * 999,
        ),
    ],
    ids=["rows", "columns"],
)
def test_one_list_that_stands_for_many_is_refused(write, node, repeated):
    whole = dumps(node)
    first, *others = whole.split(dump(repeated))
    assert pandas_frames.read_frame(write(whole)).columns
    with pytest.raises(ValueError, match=r"file: .* in \d+ bytes; expected"):
        pandas_frames.read_frame(write(first + dump(repeated) + b"q\x01" + b"h\x01".join(others)))


def test_columns_and_index_of_a_frame_come_back(write):
    read = pandas_frames.read_frame(write(TOY))
    assert read.columns == {"session": SESSIONS, "label": LABELS}
    assert read.index.tolist() == [0, 1, 2]
    read = pandas_frames.read_frame(write(dumps(session_frame(SESSIONS, LABELS, integer_index([0, 2, 1])))))
    assert read.index.tolist() == [0, 2, 1]


def test_columns_in_several_blocks_go_to_their_names(write):
    blocks = [(object_array([7, 8], 1, 2), 1, 2), (object_array([1, 2], 1, 2), 0, 1)]
    read = pandas_frames.read_frame(write(dumps(frame("ab", blocks, range_index(2)))))
    assert read.columns == {"a": [1, 2], "b": [7, 8]}


@pytest.mark.parametrize("order", ["C", "F"])
def test_object_arrays_are_read_as_numpy_writes_them(order):
    array = np.array([["a", 1, None], [2.5, [3], ()]], dtype=object, order=order)
    node = replay(pickle.dumps(array), pandas_frames._PANDAS_NAMES)
    assert pandas_frames._objects(node, ndim=2) == array.tolist()


ONE_COLUMN = [(object_array([1, 2], 1, 2), 0, 1)]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"a": [1]}, "has a dict; expected a pandas.core.frame.DataFrame"),
        (call("builtins.slice", 1), "has a builtins.slice"),
        (call("pandas.core.frame.DataFrame", state={}), "_mgr"),
        (frame("a", [(object_array([1, 2], 2, 2), 0, 1)], range_index(2)), r"2 objects in shape \(2, 2\)"),
        (frame("a", [(object_array([1, 2], 2), 0, 1)], range_index(2)), "expected 2 dimensions"),
        (frame("a", [(object_array([1, 2], True, 2), 0, 1)], range_index(2)), "integers from 0"),
        (frame("ab", ONE_COLUMN, range_index(2)), "1 of 2 columns"),
        (frame("a", ONE_COLUMN * 2, range_index(2)), "named by strings"),
        (frame([["a"]], ONE_COLUMN, range_index(2)), "named by strings"),
        (frame("aa", [ONE_COLUMN[0], (ONE_COLUMN[0][0], 1, 2)], range_index(2)), "column 'a' twice"),
        (frame("a", [(object_array([], 10**12, 0), 0, 1)], range_index(0)), "no rows or no columns"),
        (frame("a", ONE_COLUMN, range_index(3)), "3 labels for 2 rows"),
        (frame("a", ONE_COLUMN, range_index(10**15)), "labels for 2 rows"),
        (frame("a", ONE_COLUMN, integer_index([1, 2, 3])), "24 bytes"),
        (frame("a", [(integer_index([1, 2]).arguments[1]["data"], 0, 1)], range_index(2)), "_frombuffer"),
    ],
)
def test_a_pickle_that_is_no_frame_of_objects_is_refused(write, node, message):
    with pytest.raises(ValueError, match=r"file: not a pandas frame.*" + message):
        pandas_frames.read_frame(write(dumps(node)))


def test_a_frame_cut_short_anywhere_is_refused(write):
    for end in [*range(0, len(TOY), 5), len(TOY) - 1]:
        with pytest.raises(ValueError, match="file: not a readable pickle"):
            pandas_frames.read_frame(write(TOY[:end]))


def with_byte(data, position, value):
    return data[:position] + bytes([value]) + data[position + 1 :]


@FUZZ
@given(st.integers(0, len(TOY) - 1), st.integers(0, 255))
@example(5, 92)
def test_a_damaged_frame_is_read_or_refused_and_nothing_else(write, position, value):
    try:
        pandas_frames.read_frame(write(with_byte(TOY, position, value)))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_the_released_frames_are_what_pandas_reads(release):
    # SHA-256 of the json of [sessions, labels, index] as pandas 2.3 reads the two files
    digests = {
        "ML": "18e9ce429d17a724efc80e53c1ff2946aef038ce2c413443d2b9008acc102d7d",
        "Games": "19ec2b08704cacdd7e76ae05e0abea37066a50ac396ff542a4f1d02c93b5b12c",
    }
    for name, digest in digests.items():
        read = pandas_frames.read_frame(release / name / f"{name}.pkl")
        content = json.dumps([read.columns["session"], read.columns["label"], read.index.tolist()])
        assert hashlib.sha256(content.encode()).hexdigest() == digest


@given(st.lists(st.integers(1, 4), max_size=3), st.permutations(range(3)), st.integers(0, 3))
def test_strided_tensors_are_the_views_torch_would_show(tmp_path_factory, shape, order, offset):
    axes = [axis for axis in order if axis < len(shape)]
    numbers = np.arange(np.prod(shape, dtype=int) + offset + 1, dtype=np.float32)
    view = numbers[offset : len(numbers) - 1].reshape(shape).transpose(axes)
    strides = tuple(stride // 4 for stride in view.strides)
    path = tmp_path_factory.mktemp("archive") / "file"
    path.write_bytes(archive({"w": tensor("0", len(numbers), offset, view.shape, strides)}, [numbers]))
    (array,) = torch_archives.read_torch_archive(path).values()
    np.testing.assert_array_equal(array, view)
    assert array.dtype == np.float32


def test_an_archive_of_no_tensors_is_empty(write):
    assert torch_archives.read_torch_archive(write(archive({}, []))) == {}


def overlapping(data):
    """The archive with the last entry's bytes being those of the entry before."""
    *_, before, last = (match.start() for match in re.finditer(b"PK\x01\x02", data))
    return data[: last + 42] + data[before + 42 : before + 46] + data[last + 46 :]


def one(*arguments, **options):
    return {"w": tensor(*arguments, **options)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive(one("0", 6, 0, (2, 3), (3, 1)), [range(5)]), "has 20 bytes; expected 24"),
        (archive(one("0", 6, 1, (2, 3), (3, 1)), [range(6)]), "at most 6 numbers"),
        (archive(one("0", 6, 0, (2, 3), (4, 1)), [range(6)]), "at most 6 numbers"),
        (archive(one("0", 6, 0, (10**6, 10**6), (0, 0)), [range(6)]), "at most 6 numbers"),
        (archive(one("0", 6, -1, (2, 3), (3, 1)), [range(6)]), "integers from 0"),
        (archive(one("0", 6, 0, (2, 3), (-3, 1)), [range(6)]), "integers from 0"),
        (archive(one("0", 6, 0, (2, 3), (1,)), [range(6)]), "shorter"),
        (archive(one("1", 6, 0, (2, 3), (3, 1)), [range(6)]), "data/1"),
        (archive(one("0", 6, 0, (6,), (1,), storage="torch.DoubleStorage"), [range(6)]), r"torch\.DoubleStorage"),
        (archive({"w": 1}, []), "has a int"),
        (overlapping(archive(one("0", 6, 0, (6,), (1,)), [range(6), range(6)])), "'student/data/0' and .* overlap"),
        (archive(one("0", 6, 0, (6,), (1,)), [range(6)]).replace(b"byteorder", b"./data/0/"), "no member byteorder"),
        (archive({}, [], byteorder=b"big"), "big"),
        (archive({}, [], byteorder=None), "byteorder"),
        (archive({}, [], compression=zipfile.ZIP_DEFLATED), "compressed"),
        (archive({}, [], pickled=dumps([])), "has a list"),
        (archive({}, [], pickled=pickle.dumps(Bomb(os.system, "true"))), rf"{os.system.__module__}\.system"),
        (TOY, "not a zip file"),
        (b"", "not a zip file"),
    ],
)
def test_an_archive_of_anything_else_is_refused(write, data, message):
    with pytest.raises(ValueError, match=r"file: not a torch archive.*" + message) as error:
        torch_archives.read_torch_archive(write(data))
    assert "\n" not in str(error.value)


def test_an_archive_cut_short_anywhere_is_refused(write):
    for end in range(0, len(STUDENT), 7):
        with pytest.raises(ValueError, match="file: not a torch archive"):
            torch_archives.read_torch_archive(write(STUDENT[:end]))


def test_a_number_changed_in_an_archive_is_noticed(write):
    position = STUDENT.index(np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(ValueError, match="CRC"):
        torch_archives.read_torch_archive(write(with_byte(STUDENT, position, 1)))


@FUZZ
@given(st.integers(0, len(STUDENT) - 1), st.integers(0, 255))
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(write, position, value):
    try:
        torch_archives.read_torch_archive(write(with_byte(STUDENT, position, value)))
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("read", [pandas_frames.read_frame, torch_archives.read_torch_archive])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent")
