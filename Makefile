# Everything that a fresh clone needs: `make fit` and `make test` set up by themselves.
# Needed: Python 3.11 to 3.13 with venv and pip, and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV ?= uv

# Given to pytest as they stand, for instance PYTEST_ARGS="-n 2 tests/test_docs.py".
PYTEST_ARGS ?= -n 2 --dist loadfile
# The user whom `make fit` recommends films to.
FOR_USER ?= 196
# What `make mutation` breaks, by module: all of [tool.mutmut] when empty; and at how many places at once.
MUTATE ?=
MUTATE_JOBS ?= 2
# Given to uv by `make lock`; LOCK_ARGS=--upgrade takes the newest versions.
LOCK_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env fit test test-slow mutation lint format docs pages lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## make the environment .venv from the lock file

$(STAMP): requirements/lock.txt requirements/torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else \
	  f"pyro-bmf needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is {v[0]}.{v[1]}: call make PYTHON=python3.12, say.")'
	@echo "Making the environment in $(VENV); the first time takes a minute or two."
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install -qq --no-compile --require-hashes --no-deps -r requirements/lock.txt
	@# With its dependencies: a build of torch for CUDA needs CUDA's packages, one for the CPU needs nothing more.
	@$(PIP) install -qq --no-compile -r requirements/torch.txt
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@$(PIP) check
	@touch $@

fit: env ## fit MovieLens 100K and recommend films to one user
	$(BIN)/pyro-bmf fit --data ml100k --recommend-for $(FOR_USER)

test: env ## run the tests
	@# One thread a process: threads of several processes on few cores wait for each other.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: env ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

mutation: env ## break the mathematics on purpose, a line at a time, and list what no test saw (hours)
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run --max-children $(MUTATE_JOBS) $(MUTATE)
	$(BIN)/python benchmarks/mutation.py

lint: env ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pages: env ## write figures and pictures anew into README.md and docs/
	$(BIN)/python benchmarks/write_figures.py
	$(BIN)/python docs/hooks/pictures.py

lock: ## resolve the versions anew into requirements/lock.txt (needs uv)
	@$(UV) --version >/dev/null || { echo "make lock needs uv: pip install uv, or UV=path/to/uv." >&2; exit 1; }
	$(UV) pip compile pyproject.toml --extra dev --constraint requirements/torch.txt --no-emit-package torch \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
	  --custom-compile-command "make lock" $(LOCK_ARGS) --output-file requirements/lock.txt

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist site mutants *.egg-info
