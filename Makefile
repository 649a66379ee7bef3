# hmix_nb: `make run` and `make test` are all that a newcomer needs; `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
MODERN := .venv-modern
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
FLAGS  := $(if $(HMIX_DATA),--flags data)
# notebooks run in their own folder, so a relative folder would be looked for in the wrong place
ifdef HMIX_DATA
override HMIX_DATA := $(shell $(PYTHON) -c 'import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))' "$(HMIX_DATA)")
export HMIX_DATA
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test test-notebooks test-python test-sync test-modern lab docs readme bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18
	@echo
	@echo "PYTHON=python3.12 make ... picks an interpreter; HMIX_DATA=<folder> make ... uses released data that you have."

$(STAMP): settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "hmix_nb needs Python 3.10 or newer; found " + sys.version.split()[0] + ". Name one: PYTHON=python3.12 make ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV), once; PyTorch is large, so this takes a few minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat -e '.[dev]'
	@touch $@

run: $(STAMP) ## train under six labellings on embedded digits and write runs/demo/report.html
	$(BIN)/hmix run demo

test: $(STAMP) ## notebooks, pytest, sync and cleanness; ends non-zero if any fails
	@fail=; for part in test-sync test-notebooks test-python; do \
	  echo "== $$part"; $(MAKE) --no-print-directory $$part || fail="$$fail $$part"; done; \
	if [ -n "$$fail" ]; then echo "FAILED:$$fail"; exit 1; fi; echo "All checks passed."

test-sync: $(STAMP)
	$(BIN)/python tools/check_sync.py

# one thread a process: two processes with two threads each on two cores wait for each other
test-notebooks test-python test-modern: export OMP_NUM_THREADS ?= 1

test-notebooks: $(STAMP)
	$(BIN)/nbdev_test --n_workers 2 --timing $(FLAGS)

test-python: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

$(MODERN)/.installed: $(STAMP)
	$(BIN)/python tools/overlay_venv.py $(VENV) $(MODERN) fastai fastcore
	@touch $@

test-modern: $(MODERN)/.installed ## the newest fastai and fastcore over the same torch: the pytest part
	$(MODERN)/bin/python -c 'import fastai, fastcore, torch; print("fastai", fastai.__version__, "fastcore", fastcore.__version__, "torch", torch.__version__)'
	$(MODERN)/bin/python -m pytest -q -n 2 --dist loadfile tests

lab: $(STAMP) ## JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=nbs $(if $(filter 0,$(shell id -u)),--allow-root)

docs: $(STAMP) ## the site through Quarto, or a preview of each page without it; all local links checked
	$(BIN)/python tools/build_docs.py

readme: $(STAMP) ## write README.md anew from nbs/index.ipynb
	$(BIN)/python tools/check_sync.py --write-readme

bench: $(STAMP) ## the benchmarks, each against its peers in one run
	@for b in bench/*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

clean: ## remove what the targets made, the environments included; runs/ stays
	rm -rf $(VENV) $(MODERN) _docs _proc build dist *.egg-info .pytest_cache .hypothesis nbs/nbdev.yml nbs/sidebar.yml sidebar.yml.bak
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
