"""The site: a page of every public package, and a build in which every link leads somewhere."""

import re
import subprocess
import sys
import types

import pytest

import alkd_jax as alkd
from tests.helpers import paths

DOCS = paths.ROOT / "docs"


def test_every_public_module_has_a_page_that_the_site_lists():
    modules = {name for name in alkd.__all__ if isinstance(getattr(alkd, name), types.ModuleType)}
    listed = re.search(r"```\{toctree\}.*?```", (DOCS / "api" / "index.md").read_text(), re.DOTALL)[0].split()
    for name in modules - {"ops", "serving"}:
        assert name in listed, name
    for name in listed[3:-1]:
        assert f".. automodule:: alkd_jax.{name}\n" in (DOCS / "api" / f"{name}.md").read_text()


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.MULTILINE), page.name


def test_every_notebook_is_in_the_contents_and_asserts_its_headline():
    index = (DOCS / "index.md").read_text()
    overview = (DOCS / "notebooks" / "index.md").read_text()
    notebooks = sorted((DOCS / "notebooks").glob("*.py"))
    assert len(notebooks) == 7
    for notebook in notebooks:
        assert f"\nnotebooks/{notebook.stem}\n" in index, notebook.name
        assert f"]({notebook.name})" in overview, notebook.name
        *_, last = notebook.read_text().split("# %%\n")
        assert "\nassert " in f"\n{last}", notebook.name


def test_the_errors_of_the_troubleshooting_page_are_those_of_the_code():
    code = "".join(
        path.read_text() for name in ("alkd_jax", "experiments") for path in (paths.ROOT / name).rglob("*.py")
    )
    # Texts that are split over lines, or put together of several literals, are one text.
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    lines = re.findall(r"^\| `(.*?)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        parts = [part for part in line.split("…") if part.strip(" ;:()")]
        assert parts, line
        assert [part for part in parts if part.strip() not in code] == [], line


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_nb", "jupytext", "furo"):
        pytest.importorskip(package, reason=f"{package} is not installed (extra `docs`)")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=paths.ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "api" / "losses.html").read_text()
    assert "alkd_jax.losses" in page
    assert "in_batch_bpr" in page
    ids = set(re.findall(r'id="alkd_jax\.([^"]+)"', "".join(page.read_text() for page in tmp_path.glob("api/*.html"))))
    documented = {name.rpartition(".")[2] for name in ids}
    for module in (alkd, *(getattr(alkd, name) for name in alkd.__all__)):
        if isinstance(module, types.ModuleType) and module.__name__.count(".") <= 1:
            values = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
            public = {name for name, value in values.items() if not isinstance(value, types.ModuleType)}
            assert public <= documented, (module.__name__, public - documented)
    # Notebooks show what their cells printed.
    assert "spent: $0.0" in (tmp_path / "notebooks" / "asking.html").read_text()
