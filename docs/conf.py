"""Settings of the site, which `make docs` builds from the pages beside this file and the docstrings of the library."""

import importlib.metadata

from sphinx.application import Sphinx

project = "alkd_jax"
version = importlib.metadata.version("alkd_jax")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = f"{project} {version}"
# Links between pages name headings, as they do where the repository is browsed.
myst_heading_anchors = 3
# In docstrings single backticks mark code.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Shapes such as "*S N1" are no markup.
napoleon_attr_annotations = False

# Notebooks are scripts with cells. They run when the site is built, unless they ran before and did not change.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]

OUTSIDE = {
    "../CHANGELOG.md": "outside/changelog.md",
    "../benchmarks/README.md": "outside/benchmarks.md",
    "../experiments/results/README.md": "outside/results.md",
    "../experiments/results/leaderboard/ML.md": "outside/leaderboard_ml.md",
    "../experiments/results/leaderboard/Games.md": "outside/leaderboard_games.md",
}
"""Document outside this folder, as pages link to it → the page that includes it."""


def link_to_included_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces links that leave this folder by links to the pages that include their targets."""
    for target, included in OUTSIDE.items():
        for end in (")", "#"):
            source[0] = source[0].replace(f"]({target}{end}", f"]({included}{end}")


def print_times(app: Sphinx, error: Exception | None) -> None:
    """Prints how long each notebook ran that this build has executed, and all of them together."""
    pages = app.env.nb_metadata if error is None else {}
    times = {page: data["exec_data"]["runtime"] for page, data in sorted(pages.items()) if data.get("exec_data")}
    for page, seconds in times.items():
        print(f"{page:24} {seconds:6.1f} s")
    print(f"{'all notebooks':24} {sum(times.values()):6.1f} s")


def setup(app: Sphinx) -> None:
    """Connects the site's own steps."""
    app.connect("source-read", link_to_included_pages)
    app.connect("build-finished", print_times)
