# Needs GNU make and Python 3.11 or newer; everything else is installed into .venv from the locks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
CHECKED := ingestor feeds benchmarks tests
TYPED := ingestor feeds benchmarks tests

# Only `make run SECONDS=20` counts: shells have a SECONDS variable of their own, which may be exported.
DEMO_ARGS := $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS))

# Prints nothing when $(PYTHON) will do, else the one line that says what to install.
define PROBE
if ! command -v $(PYTHON) >/dev/null 2>&1 || ! $(PYTHON) -c "" >/dev/null 2>&1; then \
  echo "$(PYTHON) does not run: install Python 3.11 or newer (Debian: apt install python3 python3-venv) or give PYTHON=/path/to/python3"; \
elif ! $(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then \
  echo "$(PYTHON) is older than Python 3.11: install a newer one and give it as PYTHON=python3.11"; \
elif ! $(PYTHON) -c "import ensurepip, venv" >/dev/null 2>&1; then \
  echo "$(PYTHON) has no ensurepip: install it (Debian: apt install python3-venv)"; \
fi
endef
require_python = $(if $(PYTHON_PROBLEM),$(error $(PYTHON_PROBLEM)))
PYTHON_PROBLEM = $(shell $(PROBE))

PART ?= 1/4
# The tests of the stages without I/O: model, columns, codec, decode, books.
COVERING := $(addprefix tests/unit/,model columns codec decode books pipeline adapter \
  native/test_records.py native/test_taker.py native/test_reading.py consumer/test_orderbook.py \
  sources/live/test_backfill_worker.py) $(addprefix tests/feeds/,test_frame_queue.py test_shapes.py \
  test_several_classes.py test_book_images.py test_book_proofs.py test_hostile_fields.py)
# What the compiled library is made of: it is made anew when one of these changes.
NATIVE := $(wildcard ingestor/native/src/*.c ingestor/native/src/*.h) hatch_build.py

.DEFAULT_GOAL := help
FUZZ_S ?= 300

.PHONY: help run native fuzz test test-long coverage reliability check docs bench lock sbom clean

help:
	@echo "make run [SECONDS=20]   the demo: simulated venues into an embedded broker"
	@echo "make native             compile the library with a compiler from PyPI, where there is none"
	@echo "make fuzz FUZZ_S=300    libFuzzer on the compiled library; needs clang"
	@echo "make test               the tests (PYTEST_ARGS='-k fixed' for some of them)"
	@echo "make test-long PART=1/4  a part of the long suite, at most 40 minutes; writes its results"
	@echo "make coverage           which lines and branches of the stages without I/O no quick test takes"
	@echo "make reliability        write docs/reliability.md from the results of the suites"
	@echo "make check              ruff, mypy --strict, import rules, workflows, sizes and names"
	@echo "make docs               the documentation site in site/; warnings are errors"
	@echo "make bench              the benchmarks"
	@echo "make lock [UPGRADE=1]   write requirements*.lock anew from pyproject.toml"
	@echo "make sbom               dist/sbom.json: what the program is made of (CycloneDX)"
	@echo "make clean              remove .venv, .venv-peers and caches"
	@echo "PYTHON=python3.12 chooses the interpreter of a new .venv"

run: $(RUN_STAMP)
	@$(BIN)/ingestor demo $(DEMO_ARGS)

# 411 MB while it compiles; the library runs with any glibc since 2.17.
native: $(RUN_STAMP)
	@$(PIP) install "ziglang==0.15.2"
	@CC="$(BIN)/python -m ziglang cc $$(getconf GNU_LIBC_VERSION >/dev/null 2>&1 && \
	  echo -target $$(uname -m)-linux-gnu.2.17)" $(BIN)/python ingestor/native/build.py
	@$(PIP) uninstall --yes ziglang

fuzz: $(DEV_STAMP)
	@$(BIN)/python -m tests.fuzz.inputs .fuzz
	@clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I .fuzz \
	  -I ingestor/native/src -o .fuzz/target tests/fuzz/target.c ingestor/native/src/*.c
	@.fuzz/target -max_total_time=$(FUZZ_S) -max_len=4096 -artifact_prefix=.fuzz/ .fuzz/corpus

test: $(DEV_STAMP)
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(PYTEST_ARGS)

test-long: $(DEV_STAMP)
	@$(BIN)/python -m pytest -m long --part $(PART) \
	  --results tests/long/results/part-$(subst /,-of-,$(PART)).json $(PYTEST_ARGS)

coverage: $(DEV_STAMP)
	@$(BIN)/coverage run -m pytest -q -p no:xdist $(COVERING) $(PYTEST_ARGS)
	@$(BIN)/coverage report --skip-covered

reliability: $(DEV_STAMP)
	@$(BIN)/python -m tests.faults.report

check: $(DEV_STAMP)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy --strict $(TYPED)
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/python -m pytest -q tests/test_tidy.py

docs: $(DEV_STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

bench: $(DEV_STAMP)
	@$(BIN)/python -m benchmarks

$(BIN)/python:
	$(require_python)@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 2; }

$(RUN_STAMP): requirements.lock pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "Installing what the program needs into $(VENV) (once) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# The development lock contains the other one, so it satisfies both stamps.
$(DEV_STAMP): requirements-dev.lock pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "Installing what development needs into $(VENV) (once) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(RUN_STAMP) $@

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-annotate --no-header $(if $(UPGRADE),--upgrade)

lock: | $(BIN)/python
	@$(PIP) install "uv>=0.13"
	$(COMPILE) --all-extras --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra demo --group build -c requirements-dev.lock pyproject.toml -o requirements.lock

# In an environment of its own: it must not become part of what it lists.
sbom: requirements.lock pyproject.toml
	$(require_python)@$(PYTHON) -m venv .venv-sbom
	@.venv-sbom/bin/python -m pip --disable-pip-version-check --quiet install cyclonedx-bom==7.5.0
	@mkdir -p dist
	@PYTHONWARNINGS=ignore .venv-sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml \
	  --output-reproducible --of JSON -o dist/sbom.json requirements.lock
	@echo "dist/sbom.json: $$(grep -c '"bom-ref"' dist/sbom.json) components"

clean:
	rm -rf site $(VENV) .venv-peers .venv-sbom .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist
	find $(CHECKED) -name __pycache__ -type d -prune -exec rm -rf {} +
