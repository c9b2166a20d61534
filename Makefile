# Two commands for a newcomer: `make demo` and `make test`. Each sets itself up in .venv with nothing but Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
LOWEST := .venv-lowest
# Worker processes of a test run, each of one thread and some 1.5 GB. A file's tests share what it trains or serves.
# A third one gains nothing on two cores.
JOBS ?= 2
PYTEST := -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Where the environment forbids cached bytecode, every start of Python would compile torch and transformers again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo app detector test test-fast test-lowest lint format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv installs the whole set in well under a minute; pip brings uv. What is installed already and in range stays, so that
# another build of torch may be put in first.
$(RUNTIME): requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e .
	touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-dev.txt
	$(BIN)/python -m bonaface.page.runtime
	touch $@

# An environment of its own, where everything that we name is as old as we allow.
$(LOWEST)/.dev: requirements.txt requirements-dev.txt pyproject.toml | $(RUNTIME)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -r requirements-dev.txt
	$(LOWEST)/bin/python -m bonaface.page.runtime
	touch $@

demo: $(RUNTIME) ## train on the embedded sample set; a few minutes on two cores
	$(BIN)/python train_hf.py recipes/sample.yaml

app: $(RUNTIME) ## serve the newest run trained on photographs, or MODEL=…, at http://127.0.0.1:7860
	$(BIN)/python app.py $(if $(MODEL),--model $(MODEL))

# The families that each fold leaves out calibrate the model that is trained on all of them: see docs/detector.md.
# SIZE=large starts from the whole blocks instead of pruned ones; what comes of it is too large to ship.
SIZE ?= small
FOLDS ?= 5
PRUNING ?= --blocks 7 --units 696 --views 8000
NAME := bonaface-$(SIZE)
DETECTOR = recipes/detector.yaml --data $(DATA) $(FLAGS)
START = $(if $(filter large,$(SIZE)),,--model runs/bonaface-pruned --float8 True)
detector: $(RUNTIME) ## retrain the detector on DATA=…: an hour and a half on two cores; SIZE=large is too large to ship
	$(if $(START),$(BIN)/python -m bonaface prune $(DETECTOR) $(PRUNING) --out runs/bonaface-pruned)
	$(BIN)/python -m bonaface crossval $(DETECTOR) $(START) --leave-families-out $(FOLDS) --out runs/$(NAME)-unseen
	$(BIN)/python train_hf.py $(DETECTOR) $(START) --output_dir runs/$(NAME) \
		--calibrate_on runs/$(NAME)-unseen/report/predictions.parquet
	$(BIN)/python -m hub card runs/$(NAME) --license cc-by-nc-4.0 --unseen runs/$(NAME)-unseen \
		--data-license "research only, or none given; the images are not published with the model"
	rm -rf models/$(NAME)
	$(BIN)/python -m hub pack runs/$(NAME) models/$(NAME)

test: lint ## run ruff, mypy, the layer check and all tests, in JOBS=2 processes
	$(BIN)/python $(PYTEST) --durations 20

test-fast: $(DEV) ## run the tests that are not slow, in about two minutes
	$(BIN)/python $(PYTEST) -m "not slow"

test-lowest: $(LOWEST)/.dev ## run all tests with the lowest versions that we allow
	$(LOWEST)/bin/python $(PYTEST)

lint: $(DEV) ## run ruff, mypy and the layer check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environments and what runs and tests wrote
	rm -rf $(VENV) $(LOWEST) runs data prepared build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
