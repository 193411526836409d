# One command to do each thing. Everything lives in the checkout: .venv (Open MPI), .venv-mpich (MPICH), build/, out/.
# No active virtual environment is needed, and none is touched. A second call of any target does no set-up again.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
  $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { command -v $$python; break; }; done)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
WERROR ?= $(if $(CI),ON,OFF)
PYTEST_ARGS ?=

# cmake is taken from PyPI where the machine has none, or one too old.
CMAKE_IS_THERE := $(shell cmake --version 2>/dev/null | awk 'NR == 1 {split($$3, v, "."); print (v[1] > 3 || v[2] >= 22) ? "yes" : ""}')
CMAKE := $(if $(CMAKE_IS_THERE),cmake,.venv/bin/cmake)
CTEST := $(if $(CMAKE_IS_THERE),ctest,../../.venv/bin/ctest)

SOURCES := $(shell find csrc cmake pycoll _pycoll_torch -type f -not -name '*.pyc' 2>/dev/null) CMakeLists.txt pyproject.toml
PIP = $(1)/bin/python -m pip --disable-pip-version-check --quiet
# Modules are compiled when they are first imported: most never are, and all of them would take a minute.
INSTALL = $(PIP) install --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Two tests at a time, of two files: most wait more than they compute.
PYTEST = $(1)/bin/pytest tests -n 2 --dist loadfile
OPENMPI := .venv/.stamps
MPICH := .venv-mpich/.stamps

.PHONY: help demo test cpp-test py-test mpich-test wheel-test torch-suite bench bench-codec bench-accuracy bench-hosts bench-mapreduce bench-pool lint format asan tsan docs clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(OPENMPI)/build $(OPENMPI)/demo ## train on real digits over 2 ranks, compare with one process, then codecs; out/*.png
	mkdir -p out
	.venv/bin/pycoll run -n 2 examples/train_digits.py --plot out/demo.png
	.venv/bin/pycoll run -n 2 examples/train_digits.py --codec none,bf16,int8,int4,topk:0.01 --plot out/codecs.png

test: cpp-test py-test mpich-test ## every test: C++, Python, and MPI under both Open MPI and MPICH

py-test: $(OPENMPI)/build $(OPENMPI)/demo $(OPENMPI)/test $(OPENMPI)/frameworks
	$(call PYTEST,.venv) $(PYTEST_ARGS)

# What ranks do in shared memory does not depend on who started them, but for the starting itself; nor does Python.
mpich-test: $(MPICH)/build $(MPICH)/test ## the tests that start ranks by MPI or send over it, under MPICH
	$(call PYTEST,.venv-mpich) -m mpi -k "bootstrap or not (shm or optim or advise or choices or instructions or memory \
	  or overlap or federated or gossip or server or mapreduce)" $(PYTEST_ARGS)

# ---- C++ tests, plain and under sanitizers: $(call cpp_tests,NAME,SANITIZERS,ENVIRONMENT,WHICH,TARGETS)
define configure
	$(CMAKE) -S . -B build/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM="$(CURDIR)/.venv/bin/ninja" -DPYCOLL_TESTS=ON \
	  -DPYCOLL_PYTHON=OFF -DPYCOLL_MPI=OFF -DPYCOLL_CUDA=OFF -DPYCOLL_WERROR=$(if $(2),ON,$(WERROR)) -DPYCOLL_SANITIZE="$(2)" \
	  $(if $(filter thread,$(2)),-DCMAKE_CXX_FLAGS="-Wno-tsan -Wno-unknown-warning-option") >build/$(1).log \
	  || { cat build/$(1).log; exit 1; }
endef
define cpp_tests
	$(configure)
	$(CMAKE) --build build/$(1) -j $(JOBS) $(5:%=--target %)
	cd build/$(1) && $(3) $(CTEST) --output-on-failure --no-tests=error $(4)
endef

# libpycoll is compiled once: the Python modules of both environments are linked to the one that the C++ tests test.
build/core: $(OPENMPI)/setup $(filter csrc/% cmake/% CMakeLists.txt,$(SOURCES)) | build
	$(call configure,cpp)
	$(CMAKE) --build build/cpp -j $(JOBS) --target pycoll
	touch $@

cpp-test: build/core ## the C++ tests
	$(call cpp_tests,cpp,,,-j $(JOBS))

asan: $(OPENMPI)/setup | build ## the C++ tests under the address and undefined-behaviour sanitizers
	$(call cpp_tests,asan,address$(comma)undefined,PYCOLL_TEST_QUICK=1 \
	  ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1,-j $(JOBS))

# Only the tests that have threads. Without address randomization: the thread sanitizer of older compilers cannot map its
# shadow on some kernels otherwise.
tsan: $(OPENMPI)/setup | build ## the C++ tests under the thread sanitizer
	$(call cpp_tests,tsan,thread,PYCOLL_TEST_QUICK=1 TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 $(NO_ASLR),-R "collectives|choices|messages",test_collectives test_choices test_messages)
NO_ASLR := $(shell setarch -R true 2>/dev/null && echo setarch -R)
comma := ,

# What is only to be right: compiles in half the time.
unoptimized = -C cmake.define.CMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF -C cmake.define.CMAKE_CXX_FLAGS_RELEASE=$(1)

# ---- The rest
torch-suite: $(OPENMPI)/build $(OPENMPI)/demo ## PyTorch's own distributed tests over pycoll, and over Gloo
	mkdir -p out
	.venv/bin/python tests/torch/suite.py --json out/torch-suite.json

bench: $(OPENMPI)/build $(OPENMPI)/demo ## pycoll beside its peers, 2 and 4 ranks: the table, out/peers/*.json, plots
	.venv/bin/python bench/peers.py

bench-codec: $(OPENMPI)/build $(OPENMPI)/demo ## codecs beside memory bandwidth and torch; allreduce with each of them
	mkdir -p out
	.venv/bin/python bench/codec.py --elements 10M,100M --pages huge --json out/codec.json
	.venv/bin/python bench/codec_topk.py --json out/codec-topk.json
	.venv/bin/pycoll run -n 2 bench/compressed.py --elements 10M --json out/compressed.json

bench-accuracy: $(OPENMPI)/build $(OPENMPI)/demo ## seconds to 97 % test accuracy over slow links, beside DDP on Gloo; root, an hour
	mkdir -p out
	.venv/bin/python bench/time_to_accuracy.py --json out/accuracy.json --plot out/accuracy.png

bench-hosts: $(OPENMPI)/build $(OPENMPI)/demo $(MPICH)/build ## allreduce between hosts beside Open MPI and MPICH; root
	mkdir -p out
	.venv/bin/python bench/hosts.py --mpi .venv --mpi .venv-mpich --json out/hosts.json

bench-mapreduce: $(OPENMPI)/build $(OPENMPI)/test .venv-spark/.stamps/setup ## word count and index of 2 GiB beside PySpark; Java, half an hour
	mkdir -p out
	.venv/bin/python bench/mapreduce.py --spark .venv-spark/bin/python --json out/mapreduce.json

bench-pool: $(OPENMPI)/build ## tiny tasks a second by TaskPool, beside mpi4py.futures
	mkdir -p out
	.venv/bin/pycoll run --launcher mpi -n 3 bench/task_pool.py --json out/task-pool.json

.venv-spark/.stamps/setup: requirements/spark.txt
	test -x .venv-spark/bin/python || "$(PYTHON)" -m venv .venv-spark
	$(call INSTALL,.venv-spark) -r $<
	mkdir -p .venv-spark/.stamps && touch $@

wheel-test: $(OPENMPI)/setup ## what "pip install ." gives on a machine without MPI, used from outside the checkout
	rm -rf build/wheel
	$(call PIP,.venv) wheel . --no-deps --no-build-isolation -w build/wheel -C build-dir=build/plain \
	  -C cmake.define.PYCOLL_MPI=OFF -C cmake.define.PYCOLL_CUDA=OFF $(call unoptimized,-O0)
	$(call INSTALL,.venv) --no-deps --target build/wheel/site build/wheel/*.whl
	cd / && PYTHONPATH="$(CURDIR)/build/wheel/site" "$(CURDIR)/.venv/bin/python" -c \
	  'import numpy, pycoll; assert pycoll.init().allreduce(numpy.ones(3)).sum() == 3; print("1 passed, 0 failed")'

CXX_FILES = $(shell git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu')
lint: $(OPENMPI)/build $(OPENMPI)/test $(OPENMPI)/lint ## formatting, ruff, mypy, include rules, stubs
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/clang-format --dry-run -Werror $(CXX_FILES)
	.venv/bin/mypy pycoll
	.venv/bin/python tools/check_layers.py
	.venv/bin/python tools/check_stubs.py

format: $(OPENMPI)/lint ## rewrite the sources as the linters want them
	.venv/bin/ruff check --fix-only --quiet . ; .venv/bin/ruff format .
	.venv/bin/clang-format -i $(CXX_FILES)

docs: $(OPENMPI)/build $(OPENMPI)/demo ## draw the pictures of docs/
	.venv/bin/python tools/draw_algorithms.py

clean: ## what was built
	rm -rf build out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .venv/.stamps/build .venv-mpich/.stamps/build

distclean: clean ## and the environments
	rm -rf .venv .venv-mpich .venv-spark

build:
	mkdir -p build

# ---- Set-up, remembered by stamps: $(call environment,FOLDER,REQUIREMENTS OF ITS MPI)
define environment
$(1)/.stamps/setup: requirements/setup.txt requirements/$(2).txt
	@test -n "$$(PYTHON)" || { echo "pycoll needs Python 3.10 or newer: none of python3, python3.10 ... is" >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "pycoll needs a C++20 compiler: no c++ in PATH (Debian: apt-get install g++)" >&2; exit 1; }
	test -x $(1)/bin/python || "$$(PYTHON)" -m venv $(1)
	$$(call INSTALL,$(1)) -r requirements/setup.txt -r requirements/$(2).txt $$(if $$(CMAKE_IS_THERE),,'cmake>=3.22')
	mkdir -p $(1)/.stamps && touch $$@

$(1)/.stamps/demo $(1)/.stamps/test $(1)/.stamps/lint: $(1)/.stamps/%: requirements/%.txt | $(1)/.stamps/setup
	$$(call INSTALL,$(1)) -r $$<
	touch $$@

# What two examples run in; where it cannot be had, they are skipped.
$(1)/.stamps/frameworks: requirements/frameworks.txt | $(1)/.stamps/setup
	if $$(call INSTALL,$(1)) -r $$<; then touch $$@; else echo "$$<: not installed, its examples are not tested"; fi

# Editable: the checkout's own pycoll/ is found first by anything started in it, and must be whole there.
# The build folder is kept, so that a change compiles only what it touches. The tests under MPICH need neither CUDA nor
# fast bindings.
$(1)/.stamps/build: $(1)/.stamps/setup build/core $$(SOURCES)
	$$(call INSTALL,$(1)) --no-deps --no-build-isolation -C build-dir=build/$(2) -C cmake.define.PYCOLL_WERROR=$$(WERROR) \
	  -C cmake.define.PYCOLL_CORE="$$(CURDIR)/build/cpp/libpycoll.so" \
	  $(if $(filter mpich,$(2)),-C cmake.define.PYCOLL_CUDA=OFF $(call unoptimized,-O1)) -e .
	touch $$@
endef
$(eval $(call environment,.venv,openmpi))
$(eval $(call environment,.venv-mpich,mpich))
