# SPDX-License-Identifier: Apache-2.0
# Everything a developer does, in an environment of its own: .venv. `make` alone lists the targets.
PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
RERUNS ?= 2

# What ends up in the built libraries: an edit installs again.
NATIVE := $(shell find native -type f -not -name '*.md' 2>/dev/null)

# $(call die,MESSAGE): one line, then fail.
die = { echo "make: error: $(1)" >&2; exit 1; }

# The shell's own would hide the scripts' neighbours from them, or show Python another standard library.
unexport PYTHONSAFEPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo demo-cluster test traps conformance numba-tests generate lint format bench clean environment

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## Two jobs that do not fit on one GPU run on it together
	@$(BIN)/python benchmarks/demo.py

demo-cluster: $(STAMP) ## A scheduler, four hosts, ten jobs: who waits, who gives way, what outlives a host
	@$(BIN)/python benchmarks/demo_cluster.py

test: $(STAMP) ## Linters, C tests, unit and integration tests
	@$(BIN)/python -m pytest -n $(WORKERS) --reruns $(RERUNS) --reruns-delay 2

conformance: $(STAMP) ## The same driver cases on the soft GPU, under the shim, and on a real GPU if there is one
	@$(BIN)/python tests/conformance/run.py --workers $(WORKERS)

traps: $(STAMP) ## Put known mistakes into a copy of the source: each must be found by its test (TRAP="name ..." for some)
	@$(BIN)/python tests/traps/run.py $(if $(JSON),--json $(JSON)) $(TRAP)

generate: $(STAMP) ## Write what is generated and committed: the table of driver entry points, the shim's kernels, the protos
	@$(BIN)/python tests/conformance/coverage.py
	@$(BIN)/python native/generate/kernels.py
	@$(BIN)/python gpuvirt/proto/generate.py

numba-tests: $(STAMP) ## numba-cuda's own tests on the soft GPU, directly and under gpuvirt (20 minutes the first time)
	@$(BIN)/python tests/suites/numba_suite.py -j $(WORKERS)

lint: $(STAMP) ## Linters and project rules only
	@$(BIN)/python -m pytest -q tests/project -k "linters or layering or layout"

format: $(STAMP) ## Format Python and C in place
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/clang-format -i $$(git ls-files 'native/*.c' 'native/*.h' 'tests/*.c' 'tests/*.h' 'benchmarks/*.c')

bench: $(STAMP) ## Every benchmark, one after the other
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

environment: $(STAMP) ## Only set up .venv

clean: ## Remove everything that was built, .venv included
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml Makefile $(NATIVE)
	@command -v $(PYTHON) >/dev/null || $(call die,'$(PYTHON)' is not installed; install Python 3.11 or newer)
	@said=$$($(PYTHON) -c 'import sys; print(sys.version.split()[0])' 2>&1) || \
	  $(call die,'$(PYTHON)' does not run ($$said); name another: make PYTHON=python3.12)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  $(call die,$$($(PYTHON) --version) is too old: 3.11 or newer is needed; name another: make PYTHON=python3.12)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(call die,$(PYTHON) cannot make environments; install its venv module (Debian: apt install python3-venv))
	@folder=$$(mktemp -d) && trap 'rm -rf $$folder' EXIT && echo '#include <stdio.h>' > $$folder/x.c && \
	  echo 'int main(void) { return puts("") < 0; }' >> $$folder/x.c && \
	  $(CC) -o $$folder/x $$folder/x.c >/dev/null 2>&1 || \
	  $(call die,no working C compiler '$(CC)'; install one (Debian: apt install gcc libc6-dev))
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "make: installing gpuvirt and its tools into $(VENV)"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@
