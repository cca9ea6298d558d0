# Everything a person or a machine does with HAIF. `make` alone lists it.
.DEFAULT_GOAL := help
PY := .venv/bin/python

.PHONY: help setup native demo up test test-slow sim-night fuzz mutants attack soak soak-engine check bench bench-peers lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: ## virtual environment, locked dependencies, llama.cpp (skips what is done)
	@python3 tools/setup.py

native: setup ## llama.cpp once more, for this machine's own instructions (profiles exact-native and fast)
	@python3 tools/setup.py --native

demo: setup ## a whole mesh on loopback answers one question, shows the receipt, and stops
	@.venv/bin/haif demo

up: setup ## the same mesh, left running; Ctrl-C stops it
	@.venv/bin/haif up

check: setup ## lint and types
	@$(PY) -m ruff check haif tests tools benchmarks
	@$(PY) -m ruff format --check haif tests tools benchmarks
	@$(PY) -m mypy

test: check ## the whole suite, as CI runs it
	@$(PY) -m pytest -n 2 --dist loadgroup

test-slow: setup ## soak and large simulations
	@$(PY) -m pytest -m slow -n 2 --dist loadgroup

sim-night: setup ## 24 simulated hours, 1,000 nodes, half of them dying every hour: gates what is found, replays, prints the CPU it took
	@$(PY) -m benchmarks.night --write

fuzz: setup ## ten million hostile inputs, other ones each time; prints the seed, and what to play again
	@$(PY) -m tests.fuzz.run --inputs 10000000 --jobs 2

mutants: setup ## a thousand hostile model files through the reader and the jailed engine; fails where an end has no cause or anything grows
	@$(PY) -m benchmarks.mutants --write

attack: setup ## every lie we know before the checks of answers; fails where one gets through or an honest answer is accused
	@$(PY) -m benchmarks.attacks --write

soak: setup ## an hour of strangers, churn, floods and nonsense on real sockets; fails where anything grows
	@$(PY) -m benchmarks.soak

soak-engine: setup ## ten thousand short requests of every kind through an engine; fails where memory or descriptors grow
	@$(PY) -m benchmarks.engine_soak

bench-peers: setup ## HAIF's engine beside llama.cpp's own programs, which are built first (ten minutes, once)
	@$(PY) -m benchmarks.run engines invariance

bench: setup ## the figures of the README, measured here; prints the table
	@$(PY) -m benchmarks.run

lock: setup ## renew requirements.lock from pyproject.toml
	@$(PY) tools/lock.py

clean: ## forget the virtual environment and builds
	@rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache
