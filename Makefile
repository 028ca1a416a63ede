# Two commands: `make infer` sets up and runs one inference; `make test` sets up and runs every check.
# `make checklist` runs features/ and writes what they show into CHECKLIST.md. `make bench` takes half an hour of a quiet
# machine and writes docs/benchmarks.md.
PYTHON ?= python3
VENV ?= .venv
PROMPT ?= Write one sentence about bees.

# What a set-up depends on: when one of these is newer than the stamp, it is done again.
SOURCES := pyproject.toml rbee_core/__init__.py scripts/setup.py

.PHONY: infer test checklist bench fast clean

infer: $(VENV)/.ready-infer
	@$(VENV)/bin/rbee infer --max-tokens 64 -- "$(PROMPT)"

test: $(VENV)/.ready-test
	@$(VENV)/bin/python -m nox --session check

checklist: $(VENV)/.ready-test
	@$(VENV)/bin/python -m nox --session checklist

bench: $(VENV)/.ready-test
	@$(VENV)/bin/python -m nox --session bench

fast: $(VENV)/.ready-test
	@$(VENV)/bin/python -m nox --session fast

$(VENV)/.ready-infer: $(SOURCES)
	@$(PYTHON) scripts/setup.py --venv $(VENV) --extras llamacpp,demo
	@touch $@

$(VENV)/.ready-test: $(SOURCES)
	@$(PYTHON) scripts/setup.py --venv $(VENV) --extras llamacpp,mlx,demo,kit,test,dev
	@touch $@

clean:
	rm -rf .venv .nox build dist
