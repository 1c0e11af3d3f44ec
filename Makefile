# make help lists the targets
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup run study test sanitize lint bench wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: $(VENV)/.ready  ## a virtual environment with lipfw and all that its tests need

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lipfw needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt torch==2.13.0    # first: nothing else may choose its build
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

run: setup  ## the main job: restore a picture and find its lottery tickets (1 to 2 minutes)
	$(PY) -m lipfw -cn quickstart

SCALE ?= tiny
STUDIES := $(basename $(notdir $(wildcard experiments/fig*.yaml experiments/tab*.yaml)))
study: setup  ## every figure and table of the paper, small (an hour or two; SCALE=paper: at full size), and a page of them
	@for f in $(STUDIES); do $(PY) -m lipfw -cn $$f scale=$(SCALE) hydra/launcher=local || failed="$$failed $$f"; done; \
	  $(PY) -m lipfw.report $(addprefix runs/,$(STUDIES)) --out runs/study; \
	  test -z "$$failed" || { echo "not all runs are done of:$$failed; the same command goes on"; exit 1; }

test: setup  ## all tests, a file at a time on each core
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

# the interpreter is not sanitised, so the runtimes must come first; its own leaks are no concern of ours
SANITIZE := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize: setup  ## the kernels' tests under the address and undefined-behaviour sanitisers (needs GCC's)
	LIPFW_KERNEL_FLAGS="$(SANITIZE)" UBSAN_OPTIONS=print_stacktrace=1 \
	  LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 $(PY) -m pytest -p no:faulthandler --capture=sys tests/test_kernel.py tests/test_sparse_fit.py

lint: setup  ## style and common mistakes
	$(PY) -m ruff check src tests benchmarks hatch_build.py

bench: setup  ## how fast it is here, against published code: a page in bench/ (about 30 minutes)
	$(PY) -m benchmarks

wheel: setup  ## build the wheel into dist/
	$(PY) -m build --wheel --no-isolation

clean:  ## remove the environment and what was built; runs/ stays
	rm -rf $(VENV) dist build .pytest_cache .ruff_cache
