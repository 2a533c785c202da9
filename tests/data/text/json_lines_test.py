"""JSON lines: columns of all rows, values that are missing, half characters, and lines that expand."""

import json
import time

import pytest

from alkd_jax.data.text import json_lines
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.json_lines import read_json_lines, read_objects
from alkd_jax.data.text.source_files import TextFile

COLUMNS = {"user": ("user",), "item": ("item", "item_id"), "time": ("time",), "title": ("title",)}


def read(path, *lines, optional=("time", "title"), encoding="utf-8"):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding, "surrogatepass"))
    bad_rows = BadRows()
    frames = list(read_json_lines(TextFile(path), bad_rows, COLUMNS, optional=optional, encoding=encoding))
    rows = [row for frame in frames for row in frame.to_dicts()]
    assert bad_rows.found.total() == len(rows) + bad_rows.counts.total()
    return rows, bad_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.jsonl"


def test_a_column_of_late_rows_is_a_column_of_all_rows(path, monkeypatch):
    monkeypatch.setattr(json_lines, "_ROWS_PER_FRAME", 3)
    early, late = '{"user": "a", "item": "time"}', '{"user": "b", "item": 2, "time": 5}'
    rows, _ = read(path, *[early] * 7, late)
    assert [row["time"] for row in rows] == [None] * 7 + ["5"]
    assert "title" not in rows[0]


def test_values_that_are_no_text_and_no_number_are_missing(path):
    values = ["NaN", "Infinity", "null", "true", "[1]", "{}", '"x"', "7", "1.5", "123456789012345678901234567890"]
    rows, _ = read(path, *(f'{{"user": {value}, "item": 1}}' for value in values))
    assert [row["user"] for row in rows] == [None] * 6 + ["x", "7", "1.5", "123456789012345678901234567890"]


def test_half_an_emoji_is_one_bad_row(path):
    whole, half = '{"user": "\\ud83d\\ude00", "item": 1}', '{"user": "\\ud83d", "item": 1}'
    unused = '{"user": "c", "item": 1, "text": "\\ud83d"}'
    rows, bad_rows = read(path, whole, half, '{"user": "b", "item": "\\ude00\\ud83d"}', unused)
    assert [row["user"] for row in rows] == ["\U0001f600", "c"]
    assert bad_rows.counts == {json_lines.HALF_CHARACTER: 2}
    assert "a.jsonl, line 2: half of a character" in bad_rows.samples[0]
    assert bad_rows.samples[0].isprintable()


def test_bytes_outside_the_encoding_are_a_bad_row(path):
    path.write_bytes(b'{"user": "a\xff", "item": 1}\n{"user": "a\xfe", "item": 1}\n{"user": "b", "item": 1}\n')
    bad_rows = BadRows()
    assert [row["user"] for _, row in read_objects(TextFile(path), bad_rows)] == ["b"]
    assert bad_rows.counts == {"not in the file's encoding": 2}


def test_utf16_and_carriage_returns(path):
    rows, _ = read(path, '{"user": "zoë", "item": 1}', encoding="utf-16")
    assert rows[0]["user"] == "zoë"
    path.write_bytes(b'{"user": "a", "item": 1}\r\r{"user": "b", "item": 2}\r')
    assert [line for line, _ in read_objects(TextFile(path), BadRows())] == [1, 3]


def test_a_key_that_no_line_has_is_named(path):
    with pytest.raises(ValueError, match=r"a\.jsonl, first object: columns are 'user'; expected item or item_id"):
        read(path, '{"user": "a"}', "[]", "")


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("{'a': 'it\\'s', \"b\": \"\\\"\"}", {"a": "it's", "b": '"'}),
        ("{'a': None, 'b': [True, False], 'c': {'d': 1.5}}", {"a": None, "b": [True, False], "c": {"d": 1.5}}),
        ("{'a': 'None', 'b': '\\x41\\u00e9\\d'}", {"a": "None", "b": "Aé\\d"}),
        ("{'a': __import__('os')}", None),
        ("{'a': 'b' 'c'}", None),
        ("{'a': '\\x'}", None),
        ("{'a", None),
    ],
)
def test_literals_of_the_edition_of_2014_are_read_and_not_run(path, literal, value):
    path.write_text(literal + "\n")
    bad_rows = BadRows()
    assert [row for _, row in read_objects(TextFile(path), bad_rows)] == ([] if value is None else [value])
    assert bad_rows.counts == ({} if value is not None else {"not a JSON object": 1})


@pytest.mark.parametrize(
    "line",
    [
        "{'a':" + "[" * 10_000,
        "{'a':" + "[" * 5_000 + "]" * 5_000 + "}",
        '{"a":' * 3_000 + "1" + "}" * 3_000,
        "{'a':" + "-" * 10_000 + "1}",
        "{'a': [" + "[]," * 100_000 + "]}",
        "{'a': 0x" + "f" * 10_000 + "}",
        '{"a": ' + "9" * 5_000 + "}",
        "{'" + "\\" * 100_001 + "'",
        '{"a": "' + "x" * (1 << 22) + '"}',
    ],
    ids=["open", "nested", "objects", "signs", "lists", "hexadecimal", "digits", "backslashes", "long"],
)
def test_lines_that_expand_are_bad_rows_at_once(path, line):
    start = time.process_time()
    _, bad_rows = read(path, line, json.dumps({"user": "a", "item": 1}))
    assert bad_rows.counts.total() == 1
    assert time.process_time() - start < 3
