# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# PIP_ARGS is passed to pip; on Linux without a GPU
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# spares several GB of CUDA packages.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# A machine without an NVIDIA driver gets the versions that were tried together on CPU.
CONSTRAINTS := $(if $(shell command -v nvidia-smi 2>/dev/null),,-c constraints-cpu.txt)
INSTALL := DS_BUILD_OPS=0 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install -qq $(CONSTRAINTS) $(PIP_ARGS)

.PHONY: help demo test lint format bench clean

help: ## What there is.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.base ## Pre-train, fine-tune, certify and report on real handwritten digits: minutes on a CPU.
	$(BIN)/rrcm demo

test: $(VENV)/.dev lint ## Everything that must hold.
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.dev ## Formatting, lint and types.
	@$(BIN)/ruff format --check -q . || { echo "run 'make format'"; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/.dev ## Format and mend what can be mended.
	$(BIN)/ruff format -q .
	$(BIN)/ruff check -q --fix .

bench: $(VENV)/.dev ## Measure us and our peers; see benchmarks/README.md.
	$(BIN)/python -m benchmarks

clean: ## Remove the environment and caches; runs and data stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	@echo "installing into $(VENV): a minute or two, once"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints-cpu.txt | $(BIN)/pip
	@echo "installing into $(VENV): a minute or two, once"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.base $@
