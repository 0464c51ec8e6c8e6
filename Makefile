# Everything a person or a machine runs. The first target that needs it makes the virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COLLECTED := $(VENV)/.collected
DOCS_STAMP := $(VENV)/.installed-docs
MERMAID := $(VENV)/mermaid.min.js
BENCH_VENV ?= .venv-bench
BENCH_BIN := $(BENCH_VENV)/bin
BENCH_STAMP := $(BENCH_VENV)/.installed

.PHONY: demo test check types coverage package format docs guarantees bench bench-emulator movies-validation clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("sbrpc needs Python 3.10 or newer; this is " + sys.version.split()[0] + ". Use: make PYTHON=python3.12 ...") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev --editable ".[cli,emulator-tls,examples]"
	touch $@

demo: $(STAMP)
	cd examples && ../$(BIN)/python -m movies demo

# Spread over several processes, as most tests wait most of the time; WORKERS=0 runs one after the other. ALL=1
# also runs whole applications: processes that are killed at work, and pages in a browser.
WORKERS ?= 10
ALL ?=
test: export PYTHONDONTWRITEBYTECODE :=
test: $(STAMP) $(COLLECTED)
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(if $(ALL),,-m "not applications" --ignore tests/browser)

# What one process has compiled serves the others, which would otherwise all compile everything at once. Where
# collecting fails, the tests will say why.
$(COLLECTED): $(STAMP)
	$(BIN)/python -m pytest --collect-only -qq >$@ 2>&1 || true

# Every promise under every fault, the long form; writes the table of docs/guarantees.md.
guarantees: $(STAMP)
	SBRPC_TEST_LONG=1 SBRPC_WRITE_GUARANTEES=1 $(BIN)/python -m pytest tests/faults -s

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The public API under pyright as well, and whether it knows all of its types.
types: $(STAMP)
	SBRPC_TEST_LONG=1 $(BIN)/python -m pytest -q tests/test_types.py

# The tests once more, measured: what of each module they run, child processes included.
coverage: export PYTHONDONTWRITEBYTECODE :=
coverage: $(STAMP)
	$(BIN)/python .ci/coverage.py

# Builds the distributions into dist/, and tries them in an environment where nothing else is installed.
package: $(STAMP)
	$(BIN)/python .ci/package.py dist

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	touch $@

# Browsers draw the diagrams; with npm here, the script for it becomes a part of the site.
$(MERMAID): $(DOCS_STAMP)
	cd $(VENV) && pack=$$(npm pack --silent mermaid@11) && tar -xzOf "$$pack" package/dist/mermaid.min.js >mermaid.tmp \
	  && rm "$$pack" && mv mermaid.tmp mermaid.min.js || echo "docs: no mermaid from npm; browsers will fetch it elsewhere" >&2

# The documentation as a site, in site/; a link that leads nowhere is an error.
docs: $(DOCS_STAMP) $(MERMAID)
	MERMAID=$(MERMAID) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The other libraries, and what draws the pictures, in an environment of their own.
$(BENCH_STAMP): pyproject.toml benchmarks/requirements.txt
	test -x $(BENCH_BIN)/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BENCH_BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[cli,emulator,examples]" --requirement benchmarks/requirements.txt
	touch $@

# Everything side by side; ROUNDS=1 QUICK=1 takes two minutes and leaves docs/ alone.
bench: $(BENCH_STAMP)
	$(BENCH_BIN)/python -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

# The emulator alone, under raw AMQP frames.
bench-emulator: $(BENCH_STAMP)
	$(BENCH_BIN)/python -m benchmarks.emulator

# The movies over Service Bus and the previous way, through load and failures; QUICK=1 takes half a minute and
# leaves docs/ alone, POSTGRES=1 takes PostgreSQL in place of SQLite.
movies-validation: $(BENCH_STAMP)
	$(BENCH_BIN)/python -m benchmarks.movies $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(POSTGRES),--postgres)

clean:
	rm -rf $(VENV) $(BENCH_VENV) .nox .coverage* site benchmarks/peers/js/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
