# Everything from a clone: `make demo`, `make test`. Needs Python >= 3.10 with its venv module.
#
# Settings, on the command line or in the environment:
#   PYTHON       the interpreter the virtual environment is made with
#   TORCH_INDEX  an extra package index, for example PyTorch's CPU index, which saves the download
#                of the CUDA libraries; pip's own variables (PIP_EXTRA_INDEX_URL, …) work as well
PYTHON ?= python3
TORCH_INDEX ?=

comma := ,
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
RUN_EXTRAS := cpu,rtx,hf,samples,distill
# A stamp is newer than what it was installed from, so an unchanged project installs nothing.
RUN_STAMP := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
SOURCES := pyproject.toml constraints.txt
# The Triton server of the tests has an environment of its own: it needs numpy < 2.
TRITON := build/venvs/triton
TRITON_STAMP := $(TRITON)/installed
TRITON_SERVER := nvidia-pytriton==0.7.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo cpp test test-triton lint format bench plugin clean

# What tests look at from a folder of its own: NVIDIA's run-time compiler, its Python bindings of
# three releases of TensorRT, which cannot be installed beside each other, and what of ModelOpt runs
# on a CPU. Not in pyproject.toml, because PyTorch's CUDA builds say which compiler they come with,
# and ModelOpt asks for an older ONNX and for ONNX Runtime's build for GPUs.
BINDINGS := tensorrt-bindings
SPECIMENS := nvrtc,nvidia-cuda-nvrtc==13.0.88 \
	$(BINDINGS)/10.8.0.43,tensorrt-cu12-bindings==10.8.0.43 \
	$(BINDINGS)/10.16.1.11,tensorrt-cu12-bindings==10.16.1.11 \
	$(BINDINGS)/11.4.0.106,tensorrt-cu13-bindings==11.4.0.106 \
	modelopt,nvidia-modelopt==0.47.0,onnx-graphsurgeon==0.6.1,onnxslim==0.1.98,lief==1.0.0,nvidia-ml-py==13.615.71
SPECIMEN_STAMPS := $(foreach each,$(SPECIMENS),build/$(firstword $(subst $(comma), ,$(each)))/.installed)
specimen = $(subst $(comma), ,$(patsubst $(1)$(comma)%,%,$(filter $(1)$(comma)%,$(SPECIMENS))))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(RUN_STAMP) ## make the virtual environment and install the toolkit into it

demo: $(RUN_STAMP) ## train digit classifiers, fuse and export them, print what was proven
	$(BIN)/python samples/digits_demo.py

cpp: ## build the C++ programs that run a bundle (needs CMake and a C++ compiler)
	samples/cpp/fetch_headers.sh
	cd samples/cpp && cmake --preset release && cmake --build --preset release

test: $(TEST_STAMP) $(SPECIMEN_STAMPS) ## run the tests that need no Triton server
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not triton"

test-triton: $(TEST_STAMP) $(TRITON_STAMP) ## install a Triton server for the tests and run those that need it
	$(BIN)/python -m pytest -m triton tests/triton

lint: $(TEST_STAMP) ## check style, types and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST_STAMP) ## put the sources into the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(RUN_STAMP) ## run every benchmark, write docs/benchmarks.md and docs/which-trick.md
	$(BIN)/python -m benchmarks --write docs/benchmarks.md
	$(BIN)/python -m benchmarks.which_trick --page docs/which-trick.md

plugin: ## build and test the TensorRT plugin; TENSORRT_ROOT says where TensorRT is
	cmake --preset default -S plugins_trt/topk_gating \
		$(if $(TENSORRT_ROOT),-DTENSORRT_ROOT=$(abspath $(TENSORRT_ROOT)))
	cmake --build build/topk_gating
	ctest --test-dir build/topk_gating --output-on-failure

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache samples/recipes/weights samples/cpp/build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: $(PYTHON) is older than Python 3.10" >&2; \
		echo >&2; \
		echo "hint: name a newer one, for example make demo PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

# Where one is not to be had, as on another system, the tests that look at it say so and are skipped.
build/%/.installed: Makefile | $(VENV)/bin/python
	@mkdir -p $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(@D) $(call specimen,$*) || echo "note: no $(call specimen,$*) here" >&2
	@touch $@

$(RUN_STAMP): $(SOURCES) | $(VENV)/bin/python
	$(INSTALL) --editable '.[$(RUN_EXTRAS)]'
	@touch $@

# After the run stamp, so that the two never install at the same time under `make -j`.
$(TEST_STAMP): $(RUN_STAMP)
	$(INSTALL) --editable '.[$(RUN_EXTRAS),test,lint]'
	@touch $@

# The wheel of the server holds more than the server; what it asks for is not needed. ONNX Runtime
# and the tokenizers are the project's, so that answers can be compared bit for bit.
$(TRITON_STAMP): tests/triton/requirements.txt constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m venv $(TRITON)
	$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TRITON_SERVER)
	grep -E '^(onnxruntime|tokenizers)==' constraints.txt > $(TRITON)/constraints.txt
	$(TRITON)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(TRITON)/constraints.txt --requirement tests/triton/requirements.txt
	@touch $@
