# `make run` to try it, `make test` to test it. Everything lives in .venv (and .venv310); `make clean` removes it.

# Extras that `make test` and `make lint` install; `build` adds the compiler that rebuilds the example modules.
EXTRAS ?= test,lint
PYTEST ?= -n 2
# Seconds that `make fuzz` spends on each target.
FUZZ_SECONDS ?= 60
comma := ,

ENV := .venv
ENV310 := .venv310
SOURCES := pyproject.toml setup.cfg scripts/find-python scripts/make-venv
RUN_STAMP := $(ENV)/.installed
TEST_STAMP := $(ENV)/.installed-$(subst $(comma),-,$(EXTRAS))
BENCH_STAMP := $(ENV)/.installed-bench
FUZZ_STAMP := $(ENV)/.installed-fuzz
WASMER_STAMP := $(ENV310)/.installed-test
CACHE_SUITE := .cache-tests
SUITE_STAMP := $(CACHE_SUITE)/.installed

.PHONY: help run test test-wasmer test-cache fuzz lint bench docs examples clean
.DELETE_ON_ERROR:

help:
	@echo 'make run          serve examples/quickstart on 127.0.0.1:8080'
	@echo 'make test         run all tests'
	@echo 'make test-wasmer  run the tests of engines, the Proxy-Wasm host and example modules on CPython 3.10 (wasmer)'
	@echo 'make test-cache   run the public HTTP cache test suite against the proxy (needs Node.js)'
	@echo 'make fuzz         fuzz what reads bytes from outside, FUZZ_SECONDS (60) for each target'
	@echo 'make lint         ruff, mypy, import rules'
	@echo 'make bench        compare with Envoy, nginx and twisted.web on this machine'
	@echo 'make docs         build the documentation as HTML in docs/_build'
	@echo 'make examples     rebuild the example modules from their sources'
	@echo 'make clean        remove everything that make made'

run: $(RUN_STAMP)
	@exec $(ENV)/bin/python examples/quickstart/run.py

test: $(TEST_STAMP)
	$(ENV)/bin/python -m pytest $(PYTEST)

test-wasmer: $(WASMER_STAMP)
	$(ENV310)/bin/python -c 'import wasmer'
	$(ENV310)/bin/python -m pytest $(PYTEST) tests/runtimes tests/proxywasm tests/examples/test_modules.py \
		tests/e2e_wasm/test_flow.py tests/e2e_wasm/test_failure.py

test-cache: $(TEST_STAMP) $(SUITE_STAMP)
	CACHE_SUITE=$(CACHE_SUITE) $(ENV)/bin/python -m pytest tests/cache_suite

fuzz: $(FUZZ_STAMP)
	$(ENV)/bin/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

lint: $(TEST_STAMP)
	$(ENV)/bin/ruff check
	$(ENV)/bin/ruff format --check
	$(ENV)/bin/mypy
	$(ENV)/bin/lint-imports --verbose

bench: $(BENCH_STAMP)
	@scripts/need-programs wrk nginx taskset
	$(ENV)/bin/python benchmarks/calls.py
	$(ENV)/bin/python benchmarks/run.py

docs: $(RUN_STAMP)
	$(ENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(ENV)/bin/python -m sphinx -W -q docs docs/_build

examples: $(TEST_STAMP)
	$(ENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[build]'
	PYTHON=$(abspath $(ENV))/bin/python $(MAKE) -C examples/c_headers
	PYTHON=$(abspath $(ENV))/bin/python $(MAKE) -C tests/e2e_wasm/modules
	$(MAKE) -C examples/as_body

clean:
	rm -rf $(ENV) $(ENV310) $(CACHE_SUITE) .fuzz build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf examples/as_body/node_modules docs/_build

# A stamp is as new as the last installation of what it names; nothing is asked of the network while it is.
$(RUN_STAMP): $(SOURCES)
	@python=$$(scripts/find-python) && scripts/make-venv $(ENV) "$$python"
	@touch $@

$(TEST_STAMP): $(SOURCES)
	@python=$$(scripts/find-python) && scripts/make-venv $(ENV) "$$python" $(EXTRAS)
	@touch $@ $(RUN_STAMP)

$(FUZZ_STAMP): $(SOURCES)
	@python=$$(scripts/find-python) && scripts/make-venv $(ENV) "$$python" test,fuzz
	@touch $@ $(RUN_STAMP)

$(BENCH_STAMP): $(SOURCES)
	@python=$$(scripts/find-python) && scripts/make-venv $(ENV) "$$python" bench
	@touch $@ $(RUN_STAMP)

$(WASMER_STAMP): $(SOURCES)
	@python=$$(scripts/find-python 3.10) && scripts/make-venv $(ENV310) "$$python" test
	@touch $@

$(SUITE_STAMP): tests/cache_suite/package.json tests/cache_suite/package-lock.json
	@scripts/need-programs node npm
	@mkdir -p $(CACHE_SUITE) && cp $^ $(CACHE_SUITE)
	npm ci --prefix $(CACHE_SUITE) --ignore-scripts --no-audit --no-fund
	@touch $@
