# Targets that a user needs: export, test. `make help` lists all.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
DEVICE ?= pixel8
ETHOS_U ?= .venv-ethos-u
CASES ?= 10000
KILLED ?= --training 20 --export 50 --prepare 20

# The environment is up to date when it carries a stamp named after what went into it.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
RUN_STAMP := $(VENV)/stamp-run-$(KEY)
DEV_STAMP := $(VENV)/stamp-dev-$(KEY)
ETHOS_U_STAMP := $(ETHOS_U)/stamp-$(shell cksum < constraints-ethos-u.txt | cut -d' ' -f1)
OLD_RUNTIMES ?= .venv-old-runtimes
OLD_RUNTIMES_STAMP := $(OLD_RUNTIMES)/stamp-$(shell cksum < constraints-old-runtimes.txt | cut -d' ' -f1)
ETHOS_U_PACKAGES := 'executorch[ethos-u]' torch safetensors jaxtyping
BIN := $(VENV)/bin
# One process per core, files kept whole for what they share and begun in the order in which
# tests/conftest.py puts them; more than four processes want too much memory.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help export test test-slow test-portable test-arm test-old-runtimes test-killed attack shapes lint format types bench \
	profiles docs dist install dev ethos-u clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 26

export: $(RUN_STAMP) ## export the shipped checkpoint for DEVICE (pixel8) to exports/ and transcribe with it
	$(BIN)/python -m ortho_edge.export --device $(DEVICE)

test: $(DEV_STAMP) ## run the tests (ten minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-slow: $(DEV_STAMP) ## run what `make test` leaves out: slow tests, and every example of the property tests
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or hypothesis" --hypothesis-profile=thorough

test-portable: $(DEV_STAMP) ## run tests once more as on other machines: older processors, a bare system
	$(BIN)/python -m tests.portable

test-arm: $(DEV_STAMP) ## run every shipped size on emulated Arm cores (needs qemu-user and a cross compiler)
	ORTHO_EDGE_ARM=all $(BIN)/python -m pytest -m arm

test-killed: $(DEV_STAMP) ## kill training, export and preparation at random: what they leave is whole
	$(BIN)/python -m tests.robustness $(KILLED)

attack: $(DEV_STAMP) ## read CASES (10000) damaged files of every kind: each is refused in one line or read
	$(BIN)/python -m tests.attack --cases $(CASES)

test-old-runtimes: $(DEV_STAMP) $(OLD_RUNTIMES_STAMP) ## run ONNX files in the oldest ONNX Runtime and sherpa-onnx that are supported
	ORTHO_EDGE_OLD_RUNTIMES=$(OLD_RUNTIMES) $(BIN)/python -m pytest tests/export/test_old_runtimes.py

shapes: $(DEV_STAMP) ## run the quick tests with every array shape in a signature checked
	# beartype looks at random items of lists, which hypothesis takes for a strategy's chance.
	# ortho_kernels states no shapes, and Triton reads the source of its functions undecorated.
	$(BIN)/python -m pytest $(PARALLEL) -m "not export and not slow" \
		-W ignore::hypothesis.errors.HypothesisDeprecationWarning \
		--ignore tests/kernels --jaxtyping-packages=ortho_edge,ortho_export,tests.shapes.check

lint: $(DEV_STAMP) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(DEV_STAMP) ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(DEV_STAMP) ## check types
	$(BIN)/pyright

bench: $(DEV_STAMP) ## time every subnet size in both runtimes
	$(BIN)/python -m pytest bench --benchmark-only

profiles: $(DEV_STAMP) ## compute the cost tables of the shipped device profiles again
	$(BIN)/python -m ortho_edge.devices.shipped

docs: $(DEV_STAMP) ## build the documentation into site/
	$(BIN)/mkdocs build --strict

dist: $(DEV_STAMP) ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build

install: $(RUN_STAMP) ## only set up the environment
dev: $(DEV_STAMP) ## only set up the environment with the development tools
ethos-u: $(ETHOS_U_STAMP) ## set up the environment of its own in which --device ethos-u85-256 lowers

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) $(ETHOS_U) $(OLD_RUNTIMES) exports dist site .pytest_cache .ruff_cache .hypothesis .benchmarks

# $(call install,REQUIREMENT): pip's own output goes to a log, one line per package to the terminal.
define install
@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] \
	+ "; name another with make PYTHON=...") if not (3, 11) <= sys.version_info[:2] < (3, 14) else 0'
@echo "Setting up $(VENV) (a few minutes and about 2 GB the first time) ..."
@$(PYTHON) -m venv $(VENV)
@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	-c constraints.txt -e '$(1)' \
	| tee $(VENV)/install.log \
	| sed -u -n -e 's/^Collecting \([^ ]*\).*/  \1/p' -e 's/^Installing collected.*/  installing .../p'
@rm -f $(VENV)/stamp-*
endef

$(RUN_STAMP):
	$(call install,.)
	@touch $@

$(DEV_STAMP):
	$(call install,.[dev])
	@touch $(RUN_STAMP) $@

$(ETHOS_U_STAMP):
	@echo "Setting up $(ETHOS_U) (a few minutes the first time) ..."
	@$(PYTHON) -m venv $(ETHOS_U)
	@$(ETHOS_U)/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet \
		-c constraints-ethos-u.txt $(ETHOS_U_PACKAGES)
	@$(ETHOS_U)/bin/python -m pip check
	@rm -f $(ETHOS_U)/stamp-*
	@touch $@

$(OLD_RUNTIMES_STAMP):
	@echo "Setting up $(OLD_RUNTIMES) (a minute the first time) ..."
	@$(PYTHON) -m venv $(OLD_RUNTIMES)
	@$(OLD_RUNTIMES)/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet \
		--only-binary=:all: -c constraints-old-runtimes.txt onnxruntime sherpa-onnx
	@rm -f $(OLD_RUNTIMES)/stamp-*
	@touch $@
