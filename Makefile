# Each goal makes the environment that it needs, once; a changed pyproject.toml or constraints.txt installs anew.
#
# `make drawer` trains in RANKS processes, of a thread each.
# On Linux, PyPI serves torch with CUDA (several GB). `make demo TORCH=cpu` takes the CPU build.

PYTHON ?= python3
VENV ?= .venv
PIP_EXTRA ?= $(if $(filter cpu,$(TORCH)),--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple)
BIN := $(VENV)/bin
RANKS ?= 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_EXTRA)

.PHONY: demo pusht drawer drawer-open drawer-close miniwob test lint docs clean

demo: $(VENV)/.demo
	$(BIN)/rlvr-world train demo

pusht: $(VENV)/.pusht
	$(BIN)/rlvr-world train pusht

drawer: $(VENV)/.drawer
	OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(RANKS) -m rlvr_world \
	  $$(if [ -d runs/drawer ]; then echo resume runs/drawer; else echo train drawer --out runs/drawer; fi)
	$(MAKE) --jobs 2 drawer-open drawer-close

drawer-open drawer-close: drawer-%:
	OMP_NUM_THREADS=1 $(BIN)/rlvr-world policy-eval runs/drawer --only $* --controls --starts 20

miniwob: $(VENV)/.miniwob
	$(BIN)/rlvr-world train miniwob-goals

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlvr-world, the text games and the page to play them into $(VENV) (a minute or two)"
	$(PIP) --editable '.[textgame,serve]'
	@touch $@

$(VENV)/.pusht: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlvr-world and PushT into $(VENV), and taking the weights of LPIPS (two or three minutes)"
	$(PIP) --editable '.[pusht]'
	$(BIN)/rlvr-world lpips
	@touch $@

$(VENV)/.drawer: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlvr-world and Meta-World into $(VENV), and taking the weights of LPIPS (two or three minutes)"
	$(PIP) --editable '.[metaworld]'
	$(BIN)/rlvr-world lpips
	@touch $@

$(VENV)/.miniwob: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlvr-world and MiniWoB++ into $(VENV) (a minute or two); the browser is yours: chromium, or see docs/domains/web.md"
	$(PIP) --editable '.[web]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing rlvr-world, the embedded worlds and the development tools into $(VENV) (a minute or two)"
	$(PIP) --editable '.[textgame,pusht,metaworld,web,serve,openpi,dev]'
	-$(PIP) --no-deps openenv-core==0.3.0 openpi-client==0.1.2  # whose clients drive tests, that do with less without them
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27'
	@touch $@

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache
