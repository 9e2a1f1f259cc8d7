# Two commands do all the set-up: `make run` serves on localhost:11300 with durable jobs in ./data, `make test` runs all tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SOURCES := pyproject.toml setup.py $(shell find $(wildcard beanspiked bin lua) -type f -not -path '*/__pycache__/*' -not -name '*.so')

.PHONY: run test clean

run: $(VENV)/.installed
	@mkdir -p -m 700 data
	exec $(BIN)/beanspiked -l localhost -b data $(ARGS)

# The installed package first, compiled where there is a compiler; then the core's tests again on the source as it is.
test: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)
	PYTHONPATH=$(CURDIR) $(BIN)/pytest tests/core $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	@rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check .
	@touch $@

$(VENV)/.installed-test: $(VENV)/bin/python $(SOURCES)
	@rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .clients build dist *.egg-info
