# Everything works in one virtual environment that is made on the first use:
#
#   make demo     train and attack five defenses on a small built-in data set
#   make test     run the test suite
#   make check    linter, formatter, spelling and type checker
#   make docs     build the documentation site into site/, and check its links
#   make dist     build wheel and source archive into dist/, and check them
#   make clean    remove the virtual environment, caches and the demo's results
#   make help     this list and the settings
#
# Settings, as in `make test PYTEST_FLAGS="-m slow"`:
#
#   PYTHON        interpreter that makes the environment (python3)
#   VENV          where the environment lies (.venv)
#   DEMO_OUTPUT   where the demo's results go (results/demo)
#   DEMO_FLAGS    more flags for the demo's bench
#   PYTEST_FLAGS  flags for pytest

PYTHON ?= python3
VENV ?= .venv
DEMO_OUTPUT ?= results/demo
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

define CHECK_PYTHON
command -v $(PYTHON) >/dev/null || \
    { echo "error: no $(PYTHON) here; install Python >= 3.11 or name it with PYTHON=..." >&2; \
    exit 1; }; \
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
    { echo "error: ltrobust needs Python >= 3.11, and $(PYTHON) is $$($(PYTHON) -V 2>&1);" \
    "name another with PYTHON=..." >&2; exit 1; }
endef

.PHONY: help demo test check docs dist clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@sed -n '/^[^#]/q; s/^#   //p' Makefile

demo: $(INSTALLED)
	$(BIN)/ltrobust bench --methods core --dataset digits-lt --limit-test 60 \
	    --output $(DEMO_OUTPUT) $(DEMO_FLAGS)
	@echo "page:    $(DEMO_OUTPUT)/index.html"
	@echo "numbers: $(DEMO_OUTPUT)/leaderboard.csv, metrics.csv, per_class.csv"
	@echo "tables:  $(DEMO_OUTPUT)/tables/*.md, *.tex"
	@echo "figures: $(DEMO_OUTPUT)/figures/*.png, *.pdf"

test: $(INSTALLED_DEV)
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(INSTALLED_DEV)
	$(BIN)/mkdocs build --strict

dist: $(INSTALLED_DEV)
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis results/demo
	find ltrobust methods benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so a broken installation is tried again, and a finished one is left
# alone until pyproject.toml changes. The package is installed in place: edits act at once.
$(INSTALLED): pyproject.toml
	@$(CHECK_PYTHON)
	@echo "installing ltrobust and PyTorch into $(VENV); the first time downloads a few GB"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml
	@$(CHECK_PYTHON)
	@echo "installing ltrobust, PyTorch and the test tools into $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $(INSTALLED) $@
