# make install   a virtual environment with everything, built once; seconds when nothing changed
# make demo      draw a wardrobe, train on it, test, show (IMAGES=folder: then run the model on your own images)
# make wheel     write the wheel to dist/
# make test      the tests, on that wheel (PYTEST_ARGS='ops -k topk')
# make test-all  the same with the slow tests
# make sanitize  tests/ops under AddressSanitizer and UndefinedBehaviorSanitizer
# make check-versions  a build from source, and tests, with the oldest and the newest Python and torch
# make lint      what pre-commit and CI check
# make help      this list
# make clean     remove what builds left; work_dirs and the environment stay (make clean-venv removes that)
#
# STACK        onedl (the maintained OpenMMLab line) or openmmlab (the original one)
# VENV         folder of the virtual environment
# PYTHON       the Python to make it with, 3.11 or newer
# TORCH_INDEX  package index to take torch from. Empty: pip's own setting, whose default brings CUDA with it; without a
#              GPU, the index of CPU wheels that pytorch.org names under "Get Started" saves gigabytes.
# FORCE_CUDA   0 compiles for the CPU alone on a machine with a GPU, 1 for GPUs where none is visible. Empty: for the
#              visible GPUs; without the CUDA toolkit that this needs, the installation stops.

STACK ?= onedl
PYTHON ?= python3
TORCH_INDEX ?=
IMAGES ?=
PYTEST_ARGS ?=
WORK_DIR ?= work_dirs/demo
ifeq ($(STACK),onedl)
VENV ?= .venv
else
VENV ?= .venv-$(STACK)
endif

BIN := $(abspath $(VENV))/bin

.PHONY: help install demo wheel test test-all sanitize check-versions lint clean clean-venv

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

INSTALL = $(PYTHON) scripts/install.py --venv '$(VENV)' --stack '$(STACK)' --torch-index '$(TORCH_INDEX)'
install:
	@$(INSTALL)

wheel:
	@$(INSTALL) --wheel

demo: install
	$(BIN)/python tools/demo.py --work-dir '$(WORK_DIR)' $(if $(IMAGES),--images '$(IMAGES)')

# In the environment that has the wheel, and from tests/: no Python started by a test finds the checkout's mmdf2.
TEST = cd tests && $(abspath $(VENV))/mmdf2-install/wheel/bin/python -m pytest
test: wheel
	$(TEST) -m 'not slow' $(patsubst tests/%,%,$(PYTEST_ARGS))

test-all: wheel
	$(TEST) $(patsubst tests/%,%,$(PYTEST_ARGS))

sanitize: install
	$(BIN)/python scripts/sanitize.py

check-versions: install
	$(BIN)/python scripts/check_versions.py

CXX_FILES = $(shell git ls-files '*.h' '*.cpp' '*.cuh' '*.cu')
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/mypy
	$(if $(CXX_FILES),$(BIN)/clang-format --dry-run --Werror $(CXX_FILES))

clean:
	rm -rf build dist *.egg-info .pytest_cache tests/.pytest_cache .ruff_cache .mypy_cache
	find mmdf2 tests tools scripts configs csrc -name __pycache__ -prune -exec rm -rf {} +

clean-venv:
	rm -rf '$(VENV)' '$(VENV).lock'
