import errno
import importlib
import os
import sys
import tomllib
import zipfile

import numpy as np
import pytest

from alkd_jax.checks import check_at_least
from alkd_jax.errors import _EXTRAS, explain, import_extra, printable, reading, shown
from tests.helpers.paths import ROOT


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


@pytest.mark.parametrize(
    ("module", "package"),
    [("http", "starlette"), ("connections", "h11"), ("connections", "uvicorn"), ("server", "uvicorn")],
)
def test_a_module_that_needs_an_extra_names_it_where_it_is_imported_without(module, package, monkeypatch):
    name = f"alkd_jax.serving.{module}"
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == package or loaded == name]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    if module == "server":
        monkeypatch.delitem(sys.modules, "alkd_jax.serving.connections", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught_error:
        importlib.import_module(name)
    line = f"the package {package} is not installed; install it with: pip install 'alkd_jax[serve]'"
    assert str(caught_error.value) == line
    assert explain(caught_error.value) == line


def test_what_an_installed_package_lacks_itself_is_no_missing_extra(tmp_path, monkeypatch):
    (tmp_path / "tiktoken.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiktoken", raising=False)
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_package_that_nobody_has'"):
        import_extra("tiktoken")


def test_a_missing_library_of_the_system_is_named(tmp_path, monkeypatch):
    (tmp_path / "lightgbm.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    with pytest.raises(ImportError, match=r"lightgbm cannot be loaded \(libgomp\.so\.1"):
        import_extra("lightgbm")


def test_every_extra_that_an_error_names_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(_EXTRAS.values()) <= set(project["optional-dependencies"])
