"""Tables and figure of the students by their bytes: the front, the differences, and what the documents say."""

import pytest

from experiments.reporting import byte_tables
from tests.helpers import paths


def row(size, recall, *, resident=None, options=None):
    metrics = {name: {"mean": recall, "std": 0.0, "values": [recall]} for name in byte_tables.METRICS}
    parts = {part: {"targets": 1.0} for part in ("seen", "unseen")}
    known = {} if options is None else {"chosen": {"options": options}}
    return metrics | parts | known | {"bytes": size, "resident_bytes": resident or size}


OPTIONS = {"recency": 0.5, "backward": 0.0, "titles": 1.5, "title_places": 5}
METHODS = {
    "Best student (<= 64 KB)": row(60_000, 0.2, options=OPTIONS),
    "Best student (<= 150 KB)": row(100_000, 0.4, options=OPTIONS),
    "Best student (<= 375 KB)": row(100_000, 0.4, options=OPTIONS),
    "Rules": row(80_000, 0.3, resident=4_000_000),
    "Popularity": row(80_000, 0.1),
    "Published": {"recall@10": 0.9},
}


def test_the_front_has_what_nothing_smaller_surpasses():
    measured = {name: row for name, row in METHODS.items() if "bytes" in row}
    assert byte_tables.front(measured, "recall@10") == [(60_000, 0.2), (80_000, 0.3), (100_000, 0.4)]


def test_a_student_of_several_sizes_has_one_row_and_rows_are_in_the_order_of_bytes():
    lines = byte_tables.table({"methods": METHODS}).splitlines()[2:]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == ["Best student (\\<= 64 KB)", "Rules", "Popularity", "Best student (\\<= 150 KB)"]
    assert "titles 1.5 of 5 nearest" in lines[0]
    assert "4,000" in lines[1]


def test_differences_have_their_interval_and_a_mark_where_they_are_significant():
    test = {"method": "Best student (<= 64 KB)", "metric": "recall@10", "difference": 0.01, "interval": [0.002, 0.02]}
    tests = [
        test | {"against": "Sequential rules", "p_randomization_holm": 0.01},
        test | {"against": byte_tables.STORED, "p_randomization_holm": 0.2},
    ]
    first = byte_tables.comparisons({"methods": METHODS, "tests": tests}).splitlines()[2]
    assert first.count("+0.0100 (+0.0020 to +0.0200)") == 2
    assert first.count("*") == 1


def test_the_tables_of_the_document_agree_with_the_stored_results():
    stored = byte_tables.read()
    assert stored, "the project stores its results"
    text = (paths.ROOT / "docs" / "narrow_student.md").read_text()
    for name, numbers in stored.items():
        assert byte_tables.table(numbers) in text, name
    for name in ("ML", "Games"):
        assert byte_tables.comparisons(stored[name]) in text, name


@pytest.mark.parametrize("name", ["ML", "Games"])
def test_the_figure_shows_every_row(name):
    numbers = byte_tables.read()[name]
    panels = byte_tables.plot(numbers).axes
    assert [panel.get_ylabel() for panel in panels] == [f"test {metric}" for metric in byte_tables.METRICS]
    rows = len(byte_tables.table(numbers).splitlines()) - 2
    for panel in panels:
        points = sum(len(line.get_xdata()) for line in panel.lines if line.get_marker() == "o")
        assert points == rows
