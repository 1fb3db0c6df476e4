# Everything works on a machine with Python 3.11 and nothing else.
PYTHON ?= python3
BIN := .venv/bin
TOOLS := openvino==2026.4.1 openvino-telemetry==2025.2.0 tensorflowjs==4.22.0 tensorflow-hub==0.16.1
TENSORFLOWJS := @tensorflow/tfjs@4.22.0
OLD_TFLITE := tflite-runtime==2.14.0 numpy==1.26.4
TORCH := torch==2.13.0 transformers==4.54.1 numpy safetensors
PYTHON_3 := {"name": "python3", "display_name": "Python 3", "language": "python"}
KERNEL := {"kernelspec": $(PYTHON_3), "jupytext": null}
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo deploy dist docs notebooks requirements test test-all test-dist test-matrix test-oldest \
    test-old-tflite test-torch lint clean \
    bench bench-accuracy bench-compressed bench-deploy bench-gpu bench-published bench-tasks

.venv/installed: requirements.txt setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv: .venv/installed

requirements: .venv/installed  # requirements.txt anew, from setup.py; pins stay unless it asks for more
	$(BIN)/uv pip compile --quiet --no-python-downloads --python-version 3.11.7 --generate-hashes \
	    --annotation-style line --custom-compile-command "make requirements" \
	    --extra test --extra lint --extra dist --output-file requirements.txt setup.py $(ARGS)

dist: .venv/installed  # a wheel and an sdist of the last commit, which gives the same bytes again
	rm -rf build dist && mkdir -p build/commit
	git archive HEAD | tar -x -C build/commit
	umask 022 && $(BIN)/python -m build --no-isolation --outdir dist build/commit >/dev/null
	rm -rf build && ls -l dist

test-dist: dist
	TF_MOVPRUNE_DIST=$(CURDIR)/dist $(BIN)/python -m pytest tests/test_dist.py $(ARGS)

dist test-dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)

demo: .venv/installed
	$(BIN)/python -m examples.movie_sentiment $(ARGS)

deploy: .venv/installed
	$(BIN)/python -m examples.deploy $(ARGS)

docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed  # writes site/
	$(BIN)/python -m mkdocs build --strict $(ARGS)

notebooks: .venv/installed  # writes each .ipynb anew, from the .py beside it
	$(BIN)/jupytext --to ipynb --update-metadata '$(KERNEL)' examples/notebooks/*.py

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

.venv-tools/installed:  # the tools of others that exports are tried in, not their dependencies
	$(PYTHON) -m pip install --quiet --no-deps --target .venv-tools/lib $(TOOLS)
	if command -v npm >/dev/null; then npm install --silent --prefix .venv-tools $(TENSORFLOWJS); fi
	touch $@

test-all: export TF_MOVPRUNE_TOOLS = $(CURDIR)/.venv-tools
test-all: export TF_MOVPRUNE_OLD_TFLITE = $(CURDIR)/.venv-old-tflite/bin/python
test-all: .venv/installed .venv-tools/installed .venv-old-tflite/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --timeout 3600 --xla-refresh \
	    --cov --cov-report=term --cov-fail-under=95 $(ARGS)

test-oldest:  # the core tests with the oldest releases that setup.py allows
	$(PYTHON) tests/matrix.py oldest -- $(ARGS)

test-matrix:  # and with others, each in an environment of its own: ROWS="oldest newest", or all
	$(PYTHON) tests/matrix.py $(ROWS) -- $(ARGS)

.venv-old-tflite/installed:  # a runtime of 2023, in which files of today are run
	$(PYTHON) -m venv .venv-old-tflite
	.venv-old-tflite/bin/python -m pip install --quiet $(OLD_TFLITE)
	touch $@

test-old-tflite: .venv/installed .venv-old-tflite/installed
	TF_MOVPRUNE_OLD_TFLITE=$(CURDIR)/.venv-old-tflite/bin/python $(BIN)/python -m pytest \
	    tests/export/tflite_files/test_runtime_version.py $(ARGS)

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

bench-deploy: export TF_MOVPRUNE_TOOLS = $(CURDIR)/.venv-tools
bench-deploy: .venv/installed .venv-tools/installed
	$(BIN)/python -m benchmarks.deploy $(ARGS)
	$(BIN)/python -m benchmarks.tools $(ARGS)

bench-compressed: .venv/installed
	$(BIN)/python -m benchmarks.compressed $(ARGS)

bench-published: .venv/installed
	$(BIN)/python -m benchmarks.published $(ARGS)

bench-tasks: .venv/installed
	$(BIN)/python -m benchmarks.tasks $(ARGS)

bench-gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu_step $(ARGS)

clean:
	rm -rf .venv .venv-* build dist *.egg-info runs site
