import errno
import os
import zipfile

import numpy as np
import pytest

from alkd_jax.checks import check_at_least
from alkd_jax.errors import explain, printable, reading, shown


def caught(call):
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("the call raised nothing")


def raise_error(error):
    raise error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "'plain'"),
        ("Größe", "'Größe'"),
        ("\x1b[31mred\n", r"'\x1b[31mred\n'"),
        ("a‮b", r"'a\u202eb'"),
        ("\ud83d", r"'\ud83d'"),
        (b"\x00\xff", r"b'\x00\xff'"),
        (12, "12"),
    ],
)
def test_values_from_outside_are_shown_without_effect_on_a_terminal(value, text):
    assert shown(value) == text
    assert shown(value).isprintable()


def test_long_values_and_lines_are_cut():
    assert shown("x" * 10**6).endswith("'… (1,000,000 characters)")
    assert len(shown("x" * 10**6)) < 150
    assert len(shown(10**1000)) < 150
    assert shown(10**5000) == "<an integer of 16,610 bits>"
    assert shown([1, ("a", 2.5), {"b": None}]) == "[1, ('a', 2.5), {'b': None}]"
    shared = nested = []
    for _ in range(5_000):
        shared, nested = [shared] * 9, [nested]
    assert len(shown(shared)) < 150
    assert len(shown(nested)) < 150
    assert len(printable("\n" * 10**6, width=50)) < 150


def test_what_a_library_raises_about_a_file_names_the_file():
    with pytest.raises(ValueError, match=r"^a.zip: cannot be read \(File is not a zip file\); expected a zip archive$"):
        with reading("a.zip", expected="a zip archive"):
            zipfile.ZipFile(__file__)
    with pytest.raises(ValueError, match=r"^x\\ny: cannot be read \('b'\); expected an undamaged file"):
        with reading("x\ny"):
            {}["b"]


def test_errors_of_this_package_and_of_the_operating_system_pass_unchanged(tmp_path):
    with pytest.raises(ValueError, match=r"^size is 0; expected at least 1$"), reading("a"):
        check_at_least(1, size=0)
    with pytest.raises(FileNotFoundError), reading("a"):
        (tmp_path / "absent").read_bytes()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: check_at_least(1, size=0), "size is 0; expected at least 1"),
        (lambda: raise_error(ValueError("\x1b[2Ja\nb")), r"\x1b[2Ja\nb"),
        (lambda: open("/absent\n/file"), r"/absent\n/file: no such file or folder"),
        (lambda: open("/"), "/: is a folder; expected a file"),
        (lambda: raise_error(ModuleNotFoundError("No module", name="polars.io")), "pip install 'alkd_jax[data]'"),
        (lambda: raise_error(MemoryError()), "out of memory"),
    ],
)
def test_what_a_user_can_correct_is_one_line(call, line):
    assert line in explain(caught(call))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/full/a.npz"),
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device [source locations='...\n...']"),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    ],
)
def test_a_full_disk_is_one_line_whoever_tells_of_it(error):
    line = explain(error)
    assert line.isprintable()
    assert line.endswith("make room and run the same command again, which continues")


@pytest.mark.parametrize(
    "call",
    [
        lambda: int("no number"),
        lambda: np.zeros(3).reshape(2, 2),
        lambda: {}["absent"],
        lambda: raise_error(ModuleNotFoundError("No module", name="nowhere")),
        lambda: raise_error(TypeError("a bug")),
    ],
)
def test_a_bug_has_no_line(call):
    assert explain(caught(call)) is None
