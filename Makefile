.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Ours first: a range for torch would pull gigabytes of GPU packages.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-slurm test-full bench check format clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[torch,onnx,tensorflow,images,signal]'
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(INSTALL) -e '.[test]'
	@# To check against; what it asks for, torchvision, has no CPU build, and it runs without.
	$(INSTALL) --no-deps zennit==0.5.1
	@# Their metrics, beside ours: what else they ask for (OpenCV, torchvision) the tests stand in for.
	$(INSTALL) --no-deps quantus==0.6.0 captum==0.9.0 grad-cam==1.5.7 cachetools tqdm
	@# It asks for the TensorFlow with GPUs.
	$(INSTALL) --no-deps tf_keras==2.21.0
	@touch $@

demo: $(VENV)/.runtime ## Install, explain the sample data, draw the maps into demo/
	$(BIN)/camsweep demo demo

# One worker for each core; threads of their own would only get into each other's way. Hundreds of processes are started:
# bytecode is written, whatever the environment says, or each would compile its modules anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto

test: $(VENV)/.test ## Install what tests need, and run them
	$(PYTEST) -m "not full"

test-slurm: $(VENV)/.test ## An array job on a real Slurm, brought up here; as root
	$(BIN)/python tests/slurm/scene.py

test-full: $(VENV)/.test ## Slow and randomised sweeps too
	$(PYTEST)

bench: $(VENV)/.test ## Measure: overhead over the bare forward, start-up, and the peers that are installed
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/loading.py
	$(BIN)/python tests/benchmarks/peers.py
	$(BIN)/python tests/benchmarks/paths.py
	$(BIN)/python tests/benchmarks/relevance.py
	$(BIN)/python tests/benchmarks/pictures.py
	$(BIN)/python tests/benchmarks/metrics.py
	$(BIN)/python tests/benchmarks/durability.py

check: $(VENV)/.test ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# The root is the package: types are checked under its name, whatever the checkout is called.
	@mkdir -p .mypy_cache/root && ln -sfn ../.. .mypy_cache/root/camsweep
	cd .mypy_cache/root && ../../$(BIN)/mypy -p camsweep --config-file ../../pyproject.toml --cache-dir ..

format: $(VENV)/.test ## Let ruff format and mend what it can
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

clean: ## Remove the environment and what was made
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
