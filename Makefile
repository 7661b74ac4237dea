# Every target sets up what it needs in .venv, on a fresh machine too.
PYTHON ?= python3
BIN := .venv/bin
# They read the simulated inertial sensors in the tests; what else they ask for is CircuitPython's.
SENSOR_DRIVERS := adafruit-circuitpython-bno055 adafruit-circuitpython-bno08x \
	adafruit-circuitpython-bno08x-rvc

.PHONY: help setup demo test lint bench mutate
help:
	@echo "make demo    the whole road in about two minutes: train, export, twin, run, report"
	@echo "make test    all tests"
	@echo "make setup   only the environment, in .venv"
	@echo "make lint    ruff and basedpyright"
	@echo "make bench   speed beside peers; errors on twins that differ from the model"
	@echo "make mutate  do the tests notice faults? half an hour"

setup: .venv/dev

demo: .venv/train
	$(BIN)/robotrl demo

test: .venv/dev
	$(BIN)/pytest -n auto --dist worksteal

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: .venv/dev
	$(BIN)/python tests/benchmarks/bus.py
	$(BIN)/python tests/benchmarks/loop.py
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/fast_policy.py
	$(BIN)/python tests/benchmarks/simulation.py
	$(BIN)/python tests/benchmarks/sim_to_real.py

mutate: .venv/dev
	$(BIN)/python tests/mutation/mutate.py

.venv/train .venv/dev: .venv/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[$*]'
	test $* != dev || $(BIN)/pip install --quiet --no-deps -c constraints.txt $(SENSOR_DRIVERS)
	touch $@
