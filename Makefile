# Everything works on a machine with Python 3.11 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
TORCH := torch==2.13.0 transformers==4.54.1 numpy safetensors
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo deploy test test-all test-oldest test-torch lint clean \
    bench bench-accuracy bench-compressed bench-deploy bench-gpu bench-published

.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

.venv: .venv/installed

demo: .venv/installed
	$(BIN)/python -m examples.movie_sentiment $(ARGS)

deploy: .venv/installed
	$(BIN)/python -m examples.deploy $(ARGS)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 3600 --xla-refresh \
	    --cov --cov-report=term --cov-fail-under=95 $(ARGS)

test-oldest:  # the shell for Keras 3 with the oldest releases that setup.py allows
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -c requirements-oldest.txt \
	    ".[keras-hub,tflite,compress]" pytest pytest-xdist pytest-timeout
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m "not slow" -k "not tf_keras" \
	    tests/keras3 $(addprefix tests/test_,pruning.py callbacks.py kernel_usage.py \
	    recomputation.py traced_functions.py training_guard.py training_mode.py) $(ARGS)

test-torch: .venv/installed  # compares with PyTorch, which runs in an environment of its own
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet $(TORCH)
	TF_MOVPRUNE_TORCH=$(CURDIR)/.venv-torch/bin/python $(BIN)/python -m pytest \
	    tests/pytorch/test_with_torch.py $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/installed
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-accuracy: .venv/installed
	$(BIN)/python -m benchmarks.accuracy $(ARGS)

bench-deploy: .venv/installed
	$(BIN)/python -m benchmarks.deploy $(ARGS)

bench-compressed: .venv/installed
	$(BIN)/python -m benchmarks.compressed $(ARGS)

bench-published: .venv/installed
	$(BIN)/python -m benchmarks.published $(ARGS)

bench-gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu_step $(ARGS)

clean:
	rm -rf .venv .venv-oldest .venv-torch build dist *.egg-info runs
