# Two commands do all the set-up: `make run` serves on localhost:11300 with durable jobs in ./data, `make test` runs all tests.
#
#   make run    compiles what an embedded server needs; a shared store's engine runs as it is
#   make fast   compiles everything
#   make coverage   tests the core as it is and tells what no test reaches
#   make figures    makes the documents' tables and charts from the JSON in docs/figures
#   make dev    compiles nothing and installs a link to this directory: an edit is there at the next start

# What tests need is fetched while the server is compiled.
MAKEFLAGS += --jobs=2
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
SOURCES := pyproject.toml setup.py $(shell find $(wildcard beanspiked bin lua) -type f -not -path '*/__pycache__/*' -not -name '*.so')
# What pyproject.toml names under these words.
NAMED = $$($(BIN)/python -c 'import sys, tomllib; from functools import reduce; \
	data = tomllib.load(open("pyproject.toml", "rb")); \
	print("\n".join(p for words in sys.argv[1:] for p in reduce(dict.get, words.split("/"), data)))' $(1))
# What a function of setup.py returns, a line each.
ASK = $(BIN)/python -c 'import runpy, sys; said = runpy.run_path("setup.py")[sys.argv[1]](); \
	print(*[said] if isinstance(said, str) else said, sep="\n")'
# Installs the checkout; says what is compiled, or why nothing is.
define INSTALL
	@why="$$($(ASK) obstacle)"; echo "beanspiked: $${why:-$(1)}$${why:+: nothing is compiled, and the server is slower}"
	@rm -rf build
	@$(2) $(PIP) install --no-deps --no-build-isolation --force-reinstall .
endef

.PHONY: run fast dev test coverage figures clean

run: $(VENV)/.installed
	@mkdir -p -m 700 data
	exec $(BIN)/beanspiked -l localhost -b data $(ARGS)

fast: $(VENV)/.fast

# On the installed package, compiled where there is a compiler. With CI=true all is compiled, tested at full depth, and the core's
# quicker tests run again on the source as it is. Tests also wait for sockets and clocks, so four at a time keep two processors busy.
# All find the tests' bytecode, which .test-packages makes; else each of them compiles all.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/$(if $(filter true,$(CI)),.fast,.installed) $(VENV)/.test-packages
	$(BIN)/pytest -n 4 --dist loadgroup $(ARGS)
ifeq ($(CI),true)
	CI= PYTHONPATH=$(CURDIR) $(BIN)/pytest -n 4 --dist loadgroup tests/core $(ARGS)
endif

# Which lines and branches of the core no test reaches.
coverage: $(VENV)/.packages $(VENV)/.test-packages
	@echo "$(call NAMED,dependency-groups/coverage)" | $(PIP) install --requirement /dev/stdin
	@rm -f .coverage .coverage.*
	PYTHONPATH=$(CURDIR) BEANSPIKED_TEST_COMMAND="$(CURDIR)/$(BIN)/python -m beanspiked" $(BIN)/coverage run -m pytest -n 2 \
		tests/core tests/server tests/library tests/differential tests/test_conformance.py $(ARGS)
	@$(BIN)/coverage combine -q
	$(BIN)/coverage report

# `tests/speed/measure.py --json docs/figures/measure.json` measures anew, and stalls.py likewise.
figures:
	$(PYTHON) tests/speed/figures.py

dev: $(VENV)/.packages $(VENV)/.test-packages
	@echo "beanspiked: linking this directory into $(VENV)"
	@BEANSPIKED_PURE=1 $(PIP) install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.installed $(VENV)/.fast

$(BIN)/python:
	@$(PYTHON) -c 'import tomllib' 2>/dev/null || \
		{ echo "beanspiked: $(PYTHON) is missing, or older than 3.11: name another, as in make run PYTHON=python3.13" >&2; exit 1; }
	@echo "beanspiked: making an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.packages: $(BIN)/python pyproject.toml
	@echo "beanspiked: fetching packages"
	@echo "$(call NAMED,build-system/requires project/dependencies project/optional-dependencies/admin)" | $(PIP) install --requirement /dev/stdin
	@touch $@

# Fetches mypyc. Where nothing can be compiled it fetches nothing and leaves no stamp, so the next run asks again.
$(VENV)/.compiler: $(VENV)/.packages setup.py
	@$(ASK) needs | xargs -r sh -c '$(PIP) install "$$@" && touch $@' sh

$(VENV)/.test-packages: $(VENV)/.packages pyproject.toml | $(VENV)/.compiler
	@echo "beanspiked: fetching what the tests need"
	@echo "$(call NAMED,project/optional-dependencies/test)" | $(PIP) install --requirement /dev/stdin
	@PYTHONPATH=$(CURDIR) $(BIN)/pytest --collect-only -qq >/dev/null || echo "beanspiked: the tests cannot be collected; their run says why"
	@touch $@

$(VENV)/.installed: $(VENV)/.packages $(SOURCES) | $(VENV)/.compiler
	$(call INSTALL,compiling the embedded server for about a minute (make fast compiles the rest),BEANSPIKED_GROUPS=embedded)
	@rm -f $(VENV)/.fast
	@touch $@

$(VENV)/.fast: $(VENV)/.packages $(SOURCES) | $(VENV)/.compiler
	$(call INSTALL,compiling everything for one to three minutes)
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .clients build dist *.egg-info .coverage .coverage.*
