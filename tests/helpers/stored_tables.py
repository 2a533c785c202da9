"""Pages whose tables are made from stored results."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from tests.helpers.paths import ROOT


def assert_page_holds(page: str, folder: pathlib.Path, table: Callable[[Any], str]) -> None:
    """Asserts that a page of docs/ holds the table of every stored file of a folder, and that there is one."""
    stored = sorted(folder.glob("*.json"))
    assert stored
    text = (ROOT / "docs" / page).read_text()
    for file in stored:
        assert table(json.loads(file.read_text())) in text, file.name
