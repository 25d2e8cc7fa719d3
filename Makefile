# The two commands of the README, and what the project's own people need. Each makes the environment if there is none.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Tests at a time: on two cores a third fills the time in which others wait for processes.
WORKERS ?= 3
READY := $(VENV)/.ready

export HF_HUB_DISABLE_TELEMETRY = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo demo-translate test test-slow test-cluster lint bench

demo: $(READY)
	$(BIN)/distill run demo

demo-translate: $(READY)
	$(BIN)/distill run demo-translate

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not cluster"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-cluster: $(READY)  # a real SLURM and two hosts on this machine: as root, with slurm-wlm, munge and iproute2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster -rs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks tiny --peer textbrewer

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet -c constraints.txt -e '.[dev,demo]'
	touch $(READY)
