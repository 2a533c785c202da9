# `make demo` runs the whole method on built-in synthetic data; `make test` runs the tests. Both install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow test-docs docs check release clean

demo: $(STAMP)
	$(BIN)/python -m experiments.quickstart --out runs/quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# The site: the pages of docs/, the docstrings of the library and the notebooks, which run. A link that leads nowhere and a
# notebook that fails are errors.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs site

# The site with its notebooks, pages in a browser (where Chromium is installed), and a wheel in a fresh environment.
test-docs: docs
	$(BIN)/python -m pytest -m browser -rs
	$(BIN)/python -m pytest -m slow tests/experiments/command_line_test.py -k wheel -rs

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make release VERSION=x.y.z: checks, tests, tags vx.y.z and builds the wheel; nothing is pushed or uploaded.
release: $(STAMP)
	@test -z "$$(git status --porcelain)" || { echo "error: the working tree has changes; commit them first" >&2; exit 2; }
	@grep -qxF 'version = "$(VERSION)"' pyproject.toml || { echo "error: VERSION is '$(VERSION)'; expected the version in pyproject.toml" >&2; exit 2; }
	@grep -qE '^## v?$(subst .,\.,$(VERSION))( |$$)' CHANGELOG.md || { echo "error: CHANGELOG.md has no heading ## $(VERSION)" >&2; exit 2; }
	@! git rev-parse --quiet --verify 'refs/tags/v$(VERSION)' >/dev/null || { echo "error: the tag v$(VERSION) exists" >&2; exit 2; }
	$(MAKE) check test test-slow
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	git tag -a 'v$(VERSION)' -m 'Version $(VERSION)'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench,data,dev,export,llm,report,serve,titles,trees]"
	touch $@

clean:
	rm -rf $(VENV) build dist site jupyter_execute .jupyter_cache *.egg-info .pytest_cache .mypy_cache .ruff_cache
