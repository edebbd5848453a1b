# Two commands from a fresh clone: `make run` edits the demo clip, `make test` checks everything.
# PYTHON chooses the interpreter of the virtual environment; it must be 3.11 or newer.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0
comma := ,
# The CUDA sources are compiled by the machine's nvcc, or else by the one from the package registry.
NVCC := $(if $(shell command -v nvcc),,$(comma)nvcc)

.PHONY: setup setup-dev run test test-slow bench clean

setup: $(VENV)/.setup
	$(BIN)/rigid-live assets pull --group run
	$(BIN)/rigid-live assets build

setup-dev: $(VENV)/.setup-dev
	$(BIN)/rigid-live assets pull
	$(BIN)/rigid-live assets build

run: setup
	mkdir -p out
	$(BIN)/rigid-live run --source demo --set smile=0.8 --set age=0.5 --compare \
		--sink out/demo.mp4 --report out/demo.json

test: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

test-slow: setup-dev
	$(BIN)/pytest -m slow

# The demo clip at 640x360, unless a line says otherwise. Takes several minutes and 16 GB of memory.
BENCH := $(BIN)/rigid-live bench --size 640x360
bench: setup-dev
	mkdir -p out/bench
	rm -f out/bench/*.json
	$(BENCH) --baseline eager --report out/bench/1_default_bundle.json --plot out/bench/1_default_bundle.png
	$(BENCH) --bundle paper-256 --precision auto fp32 --frames 12 --baseline eager --report out/bench/2_same_size.json
	$(BENCH) --runtime openvino onnxruntime eager --frames 30 --report out/bench/3_runtimes.json --plot out/bench/3_runtimes.png
	$(BENCH) --precision auto fp32 --variant full whole_rate --frames 60 --report out/bench/4_precisions_and_variants.json
	$(BIN)/rigid-live bench --size 1280x720 --faces 1 2 3 4 --frames 45 --report out/bench/5_faces.json
	$(BENCH) 1280x720 1920x1080 3840x2160 --frames 45 --report out/bench/6_frame_sizes.json
	$(BENCH) --pace --report out/bench/7_live.json
	$(BIN)/rigid-live run --set age=0.5 --sink out/bench/edited.mp4 --report out/bench/8_file_to_file.json
	$(BIN)/rigid-live bench --page docs/benchmarks.md --reports out/bench/*.json

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.setup: pyproject.toml $(VENV)/.python
	$(PIP) install --quiet --editable '.[gui]'
	touch $@

# torch goes first and alone, so that nothing else can bring in another version of it.
$(VENV)/.setup-dev: $(VENV)/.setup
	$(PIP) install --quiet '$(TORCH)'
	$(PIP) install --quiet --editable '.[gui,train,tensorrt-build,dev$(NVCC)]'
	touch $@
