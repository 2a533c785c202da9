"""Delimited text: line ends, encodings, quotes that are not closed and their sound twins, and rows that add up."""

import csv
import io

import pytest

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import check_format, read_delimited
from alkd_jax.data.text.source_files import TextFile

COLUMNS = {"user": ("user",), "item": ("item",), "time": ("time",)}
NOT_CLOSED = "a quote opens and is not closed in its row"


def read(path, content, *, quote='"', separator=",", **options):
    """Rows as (line, user, item, time), and the account."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    bad_rows = BadRows()
    frames = read_delimited(TextFile(path), bad_rows, COLUMNS, separator=separator, quote=quote, **options)
    rows = [row for frame in frames for row in frame.select("line", *COLUMNS).iter_rows()]
    assert bad_rows.found.total() == len(rows) + bad_rows.counts.total()
    return rows, bad_rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.csv"


@pytest.fixture(params=[1 << 24, 7], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Reads files in one block, and in blocks of a few bytes."""
    read_blocks = text_files.read_blocks
    monkeypatch.setattr(
        text_files, "read_blocks", lambda file, **options: read_blocks(file, **options, size=request.param)
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", [False, True])
def test_every_line_end_gives_the_same_rows(path, blocks, end, quoted):
    rows = [("ann", "x1", "1"), ("bob", 'say "hi"' if quoted else "x2", "2"), ("eve", "", "3")]
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([COLUMNS, *rows])
    found, bad_rows = read(path, text.getvalue() + end + end)
    assert found == [(line, *row) for line, row in enumerate(rows, 2)]
    assert not bad_rows.counts


@pytest.mark.parametrize("other", ["x", '"x"'])
def test_a_carriage_return_within_a_line_belongs_to_the_id(path, blocks, other):
    found, bad_rows = read(path, f"user,item,time\na\rb,{other},1\r\nc,y\r,2\n")
    assert found == [(2, "a\rb", "x", "1"), (3, "c", "y\r", "2")]
    assert not bad_rows.counts


SOUND = (
    'user,item,time\na,x,1\na,"two\nlines",2\n"first\ncolumn",y,3\nb,"He said: ""a, b""\nand, then\n\nleft",4\nc,z,5\n'
)


def test_fields_over_several_lines_are_read_as_csv_reads_them(path, blocks):
    found, bad_rows = read(path, SOUND)
    assert [list(row[1:]) for row in found] == list(csv.reader(io.StringIO(SOUND)))[1:]
    assert [row[0] for row in found] == [2, 3, 5, 7, 11]
    assert not bad_rows.counts


@pytest.mark.parametrize("closed", ["never", "rows later", "at the end of a row", "after other text"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_quote_that_its_row_does_not_close_costs_that_row_only(path, blocks, closed, column):
    rows = [[f"u{n}", f"i{n}", f"{n}"] for n in range(40)]
    rows[5][column] = '"' + rows[5][column]
    last = 30 if closed != "never" else None
    if last:
        rows[last][2 if closed == "at the end of a row" else 1] += '"' if closed != "after other text" else '"x'
    found, bad_rows = read(path, "\n".join(map(",".join, [[*COLUMNS], *rows])))
    assert bad_rows.counts == {NOT_CLOSED: 1}
    assert f"a.csv, line 7: {NOT_CLOSED}: '{','.join(rows[5])}'" in bad_rows.samples[0]
    assert [list(row[1:]) for row in found] == rows[:5] + rows[6:]


def test_text_after_a_closing_quote_is_a_bad_row(path, blocks):
    found, bad_rows = read(path, 'user,item,time\na,"House" M.D.,1\nb,7" disc,2\nc,"x"\n"d","y","3"\n')
    assert found == [(3, "b", '7" disc', "2"), (5, "d", "y", "3")]
    assert bad_rows.counts == {"text after a closing quote": 1, "too few fields": 1}


def test_long_quoted_fields_are_read_and_endless_ones_end(path):
    long = "z" * 140_000 + "\n,"
    found, _ = read(path, f'user,item,time\na,"{long * 3}",1\nb,y,2\n')
    assert [row[2] for row in found] == [long * 3, "y"]
    rows = "".join(f"u{n},some longer name of an item {n},{n}\n" for n in range(30_000))
    found, bad_rows = read(path, f'user,item,time\na,"x,1\n{rows}')
    assert (len(found), dict(bad_rows.counts)) == (30_000, {NOT_CLOSED: 1})


def test_blank_lines_are_no_rows_and_count_as_lines(path, blocks):
    found, bad_rows = read(path, "\n\r\nuser,item,time\n\na,x,1\n\n\r\nb,y\n \nb,y,2\n")
    assert [row[0] for row in found] == [5, 10]
    assert bad_rows.counts == {"too few fields": 2}
    assert bad_rows.samples[0].endswith("line 8: too few fields: 'b,y'")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "iso-8859-1", "cp1252", "cp037"]
)
def test_encodings_that_python_knows_are_read(path, blocks, encoding):
    found, bad_rows = read(path, "user,item,time\r\nzoë,café,1\r\nbob,x,2\r\n".encode(encoding), encoding=encoding)
    assert found == [(2, "zoë", "café", "1"), (3, "bob", "x", "2")]
    assert not bad_rows.counts


def test_invalid_bytes_are_bad_rows_and_a_replacement_character_is_none(path, blocks):
    found, bad_rows = read(path, b"user,item,time\na,x\xff,1\nb,\xef\xbf\xbd,2\nc,\xc3,3\nd,y,4\n")
    assert found == [(3, "b", "\ufffd", "2"), (5, "d", "y", "4")]
    assert bad_rows.counts == {"not in the file's encoding": 2}


@pytest.mark.parametrize(
    "encoding", ["nothing", "utf8-sig", "", "a\0b", "rot13", "base64", "idna", "undefined", "x" * 900]
)
def test_an_unknown_encoding_is_named(path, encoding):
    with pytest.raises(ValueError, match=r"encoding is '.*expected a name that Python knows") as error:
        read(path, b"user,item,time\n", encoding=encoding)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_that_is_not_in_an_encoding_with_a_mark_is_named(path, blocks, encoding):
    with pytest.raises(ValueError, match=rf"a\.csv is not in {encoding} \(.*BOM\); expected the encoding") as error:
        read(path, "user,item,time\n" + "a,x,1\n" * 90, encoding=encoding)
    assert str(error.value).isprintable()


def test_half_a_surrogate_pair_of_an_encoding_is_a_bad_row(path):
    found, bad_rows = read(path, b"user,item,time\na+2D0-,x,1\nb,y,2\n", encoding="utf-7")
    assert found == [(3, "b", "y", "2")]
    assert bad_rows.counts == {"not in the file's encoding": 1}


def test_other_forms_of_the_file_are_guessed_in_the_error(path):
    for content, hint in (
        ("user;item;time\na;x;1\n", "--separator ';'"),
        ("user\titem\ttime\n", r"--separator '\t'"),
        ("user,item,time\n".encode("utf-16-le"), "--encoding utf-16"),
        ("user,item,time\n".encode("utf-16"), "--encoding UTF-16"),
        ("user,item,time\n".encode("utf-32"), "--encoding UTF-32"),
        ('user,"item,time\n', "every quote to be closed"),
        ("", "is empty"),
        ("\n\n", "is empty"),
    ):
        with pytest.raises(ValueError, match=r"a\.csv") as error:
            read(path, content)
        assert hint in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("separator", "quote"), [("", '"'), ("\n", ""), (",", "''"), (",", ","), ("a\r", ""), ('"', '"'), (",", "\n")]
)
def test_a_separator_and_a_quote_have_to_differ(separator, quote):
    with pytest.raises(ValueError, match=r"(separator|quote) is .*; expected"):
        check_format(separator, quote)


@pytest.mark.parametrize(("separator", "quote"), [(";", '"'), ("|", "'"), ("¦", '"'), ("\t", ""), ("::", "")])
def test_other_separators_and_quotes(path, blocks, separator, quote):
    rows = [("a", f"{quote}x{quote}", "1"), ("b", "y,z", "2")]
    found, _ = read(path, "\n".join(map(separator.join, [COLUMNS, *rows])), separator=separator, quote=quote)
    assert found == [(2, "a", "x", "1"), (3, "b", "y,z", "2")]


def test_lines_without_end_are_refused_and_wide_ones_counted(path):
    with pytest.raises(ValueError, match=r"a\.csv, line 2: longer than 8,388,608 bytes"):
        read(path, b"user,item,time\n" + b"x" * (17 << 20))
    found, bad_rows = read(path, b"user,item,time\n" + b"," * (1 << 18) + b"\n" * (1 << 18) + b"a,x,1\n")
    assert (len(found), dict(bad_rows.counts)) == (1, {"too many fields": 1})
