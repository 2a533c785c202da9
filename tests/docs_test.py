"""The examples in the documents and in the docstrings run, and print what they say.

A document's ```python blocks run in order, in one namespace and in an empty folder. A block after the comment
`<!-- no-run: REASON -->` does not run; that is for blocks that need a network or hardware. A block after the comment
`<!-- file: PATH -->` is written to this file, so that the blocks after it can import it. A block that names
`alkdrec-release` needs the authors' released files and does not run where they are absent.
"""

import dataclasses
import doctest
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import alkd_jax as alkd
from tests.helpers.paths import ROOT, SHARED

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = ("large_catalogues.md", "library.md", "many_devices.md", "own_parts.md")
FENCE = re.compile(r"^( *)```(\S*)")
FILE = re.compile(r"<!-- file: (.+) -->")
NO_RUN = re.compile(r"<!-- no-run: (.+) -->")
RELEASE = "alkdrec-release"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, its first line's number from 1, its text, and the line of text before it."""

    language: str
    line: int
    text: str
    before: str


def blocks_of(markdown):
    blocks, before, lines = [], "", markdown.splitlines()
    row = 0
    while row < len(lines):
        opening = FENCE.match(lines[row])
        if opening is None:
            before = lines[row].strip() or before
            row += 1
            continue
        indent, language = opening.groups()
        end = next((at for at in range(row + 1, len(lines)) if lines[at].rstrip() == f"{indent}```"), None)
        assert end is not None, f"the fence of line {row + 1} is never closed"
        text = "\n".join(line.removeprefix(indent) for line in lines[row + 1 : end])
        blocks.append(Block(language, row + 2, text, before))
        before, row = "", end + 1
    return blocks


def runs(block):
    return block.language == "python" and not NO_RUN.fullmatch(block.before)


def run_blocks(blocks, filename):
    """Runs python blocks in one namespace; a traceback names the document and its line."""
    namespace = {"__name__": "__main__"}
    for block in blocks:
        if file := FILE.fullmatch(block.before):
            path = pathlib.Path(file[1])
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
        elif runs(block) and (RELEASE not in block.text or (SHARED / RELEASE).is_dir()):
            code = compile("\n" * (block.line - 1) + block.text, filename, "exec")
            exec(code, namespace)
    return namespace


WITH_PYTHON = [path for path in DOCUMENTS if any(map(runs, blocks_of(path.read_text())))]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW)) for path in WITH_PYTHON],
    ids=[str(path.relative_to(ROOT)) for path in WITH_PYTHON],
)
def test_the_blocks_of_a_document_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if (SHARED / RELEASE).is_dir():
        (tmp_path / RELEASE).symlink_to(SHARED / RELEASE)
    # Documents print what they show, which the test does not compare.
    run_blocks(blocks_of(path.read_text()), str(path))


def test_blocks_are_found_and_share_names():
    text = (
        "# A\n\n```python\nx = 1\n```\n<!-- no-run: needs a GPU -->\n\n```python\nx = 2\n```\n"
        "- in a list\n\n  ```python\n  y = x\n\n  z = y\n  ```\n```bash\nexit 1\n```\nno-run: a word of the text\n"
        "```python\nx += 10\n```\n"
    )
    blocks = blocks_of(text)
    assert [block.line for block in blocks] == [4, 9, 14, 19, 23]
    assert [runs(block) for block in blocks] == [True, False, True, False, True]
    namespace = run_blocks(blocks, "A.md")
    assert [namespace[name] for name in "xyz"] == [11, 1, 1]
    with pytest.raises(AssertionError, match="line 1 is never closed"):
        blocks_of("```python\nx = 1\n")


def test_a_block_with_the_name_of_a_file_is_written_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "<!-- file: pack/a.py -->\n```python\ny = 1 / 0\n```\n```python\nx = 1\n```\n"
    assert run_blocks(blocks_of(text), "A.md").get("y", "not run") == "not run"
    assert (tmp_path / "pack" / "a.py").read_text() == "y = 1 / 0"


def test_a_failing_block_names_the_line_of_the_document():
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks(blocks_of("text\n\n```python\nx = 0\n1 / x\n```\n"), "A.md")
    assert (str(caught.traceback[-1].path), caught.traceback[-1].lineno + 1) == ("A.md", 5)


WITH_EXAMPLES = [path for path in sorted((ROOT / "alkd_jax").rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_of_a_module_print_what_they_say(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    names = {"alkd": alkd, "jax": jax, "jnp": jnp, "np": np}
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    for test in tests:
        runner.run(test, out=report.append)
    assert any(test.examples for test in tests)
    assert not report, "".join(report)
