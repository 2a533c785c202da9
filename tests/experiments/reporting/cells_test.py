"""Names that look like Markdown, HTML, LaTeX, formulas or control sequences are shown, and act as nothing."""

import csv
import html
import io
import re

import markupsafe
import pytest
import tabulate
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.errors import markdown
from experiments.reporting import cells, pages, tables

NAMES = [
    "a|b",
    "`a`",
    "<b>x</b>",
    "*a*",
    "_a_",
    "[a](b)",
    "a\nb",
    "\x1b[31ma",
    "=1+1",
    "\\",
    "#",
    "\ud83d",
    "\u202ea",
    "$x$",
]
METRIC = {"mean": 0.1, "std": 0.0, "values": [0.1]}


def run_of(name):
    methods = {method: dict.fromkeys(tables.METRICS, METRIC) for method in ("Student", name)}
    return {"dataset": name, "backbone": name, "methods": methods, "tests": []}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_has_its_rows_and_columns_whatever_the_names(name):
    published = {"implausible": {}}
    rows = tables.result_rows(run_of(name), published, markdown)
    lines = tabulate.tabulate(rows, tables.HEADINGS, tablefmt="github", disable_numparse=True).split("\n")
    assert len(lines) == 4
    for line in lines:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(tables.HEADINGS) + 1
        assert line.isprintable()
        assert not re.search(r"(?<!\\)[<`]|(?<!\\)\]\(", line)
    plain = tables.result_rows(run_of(name), published)
    latex = tabulate.tabulate(plain, tables.HEADINGS, tablefmt="latex_booktabs", disable_numparse=True)
    assert len(latex.split("\n")) == 8
    assert not re.search(r"(?<!\\)[$#_]", latex)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@A1", " =1", "\t=1", "\r=1", "\n=1"])
def test_no_name_is_a_formula_of_a_spreadsheet(name):
    lines = io.StringIO(newline="")
    csv.writer(lines).writerows(tables.result_rows(run_of(name), {"implausible": {}}, cells.spreadsheet))
    for row in csv.reader(io.StringIO(lines.getvalue(), newline="")):
        assert not row[0].lstrip().startswith(("=", "+", "-", "@"))
    assert cells.spreadsheet("a=b") == "a=b"


@given(st.text() | st.text(r"\`*<>|&~#$[]()_a"))
def test_an_escaped_name_reads_as_the_name(name):
    assert re.sub(r"\\([\\`*<>|&~#$\]_])", r"\1", markdown(name)) == cells.plain(name)
    assert markdown(name).isprintable()


def test_common_names_stay_as_they_are():
    for name in ("ML", "Games", "last-fm_1k", "RAD-BC", "alkd_jax 0.1.0", "Film 3 é"):
        assert markdown(name) == cells.plain(name) == cells.spreadsheet(name) == name


@pytest.mark.parametrize("name", NAMES)
def test_no_title_acts_as_html_or_a_control_sequence_in_a_page(name):
    result = {"topics": [("Titles", [{"severity": "info", "name": name, "value": name, "explanation": name}])]}
    page = pages.render_page(
        "audit.html.jinja",
        title=name,
        about=name,
        **result,
        figure=markupsafe.Markup("<svg></svg>"),
        caption=name,
        provenance=[(name, name)],
        samples=[name],
        fingerprint="0",
    )
    assert page.count("<svg>") == 1
    assert "<b>" not in page
    assert page.encode()
    assert page.replace("\n", "").isprintable()
    assert page.count(str(markupsafe.escape(cells.plain(name)))) >= 8
    assert html.unescape(page).count(cells.plain(name)) >= 8
