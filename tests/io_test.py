"""A file is replaced in one step or left as it was, and damage is named with its line."""

import hashlib

import pytest

from alkd_jax.io import finite_or_none, read_json, replacing, sha256_of, write_json, write_text, write_texts


def test_an_error_leaves_the_former_file_and_no_remains(tmp_path):
    write_text(tmp_path / "a.txt", "old\r\né\n")

    def write_half():
        with replacing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (tmp_path / "a.txt").read_bytes() == "old\r\né\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_new_file_is_not_in_place_before_the_end_of_the_block(tmp_path):
    with replacing(tmp_path / "a.txt") as partial:
        partial.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert sha256_of(tmp_path / "a.txt") == hashlib.sha256(b"new").hexdigest()


def test_json_returns_as_it_was_and_damage_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, "é"]}
    write_text(tmp_path / "a.json", '{\n"a": [1,\n')
    with pytest.raises(ValueError, match=r"a\.json:3: "):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_named_and_not_written(tmp_path, wrong):
    value = {"methods": {"Student": {"values": [0.5, wrong]}}, "pair": (wrong, 1)}
    with pytest.raises(ValueError, match=rf"m.json: methods: Student: values: 1 is {wrong}; expected a finite number"):
        write_json(tmp_path / "m.json", value)
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "m.json", finite_or_none(value))
    assert read_json(tmp_path / "m.json") == {"methods": {"Student": {"values": [0.5, None]}}, "pair": [None, 1]}


def test_files_written_together_are_all_there_or_as_before(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    write_texts({first: "1", second: "2"})
    with pytest.raises(UnicodeEncodeError):
        write_texts({first: "new", second: "\ud83d"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder"):
        write_texts({first: "new", tmp_path / "folder": "new"})
    assert (first.read_text(), second.read_text()) == ("1", "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "folder"]
