# Everything sets itself up: `make report` and `make test` need only Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

# By files, whose tests share what they train, derive and build.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup report test test-all slow-and-quick site lint docs browser figures bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,hf,peers,docs]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on every core; pip would on one
	touch $@

report: setup
	$(BIN)/python -m analyses --out build/report

test: setup  # the quick tier: the whole core
	$(PYTEST) -m "not slow"

test-all: slow-and-quick site

slow-and-quick: setup
	$(PYTEST) --ignore tests/test_site.py

site: docs
	$(BIN)/python -m pytest tests/test_site.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m docs.methods --check

figures: setup  # says what of figures/ is stale, and draws it again at full size: some studies take hours, and go on
	$(BIN)/python -m analyses --stale
	$(BIN)/python -m analyses --full
	$(BIN)/python -m docs.methods

bench: setup
	$(BIN)/python -m benchmarks

docs: setup  # two processes, a thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 docs build/docs/html
	$(BIN)/python -m tests.check_site build/docs/html

# What the tests need that open the explorer and the site: Debian's Chromium, which takes root, and axe-core of npm.
browser: build/axe.min.js
	command -v chromedriver > /dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null; }

build/axe.min.js:
	mkdir -p build
	! command -v npm > /dev/null || (cd build && tar xzOf "$$(npm pack --silent axe-core@4.14.1)" package/axe.min.js > axe.partial && mv axe.partial axe.min.js)

clean:
	rm -rf build dist $(VENV)
