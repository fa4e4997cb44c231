# The commands of sparkopt. Each sets up what it needs; a second call sets up nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ACTIVATE := source .venv/environment &&
# spark-submit reads a job's output through a pipe, so a job cannot see the terminal by itself.
PROGRESS := { [ ! -t 1 ] || export SPARKOPT_PROGRESS=$${SPARKOPT_PROGRESS:-1}; } &&
SUBMIT := $(ACTIVATE) $(PROGRESS) spark-submit --properties-file conf/local.conf
# What follows --properties-file goes to the job: make run ARGS="--optimizer adam --max-iter 300"
ARGS ?=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

.venv/ready: setup.py .ci/setup .ci/constraints.txt
	@.ci/setup

.venv/horovod: .venv/ready .ci/horovod
	@.ci/horovod && touch $@

.venv-airflow/ready: .venv/ready .ci/airflow .ci/airflow-constraints.txt
	@.ci/airflow && touch $@

.venv-docs/ready: .venv/ready .ci/docs
	@.ci/docs && touch $@

.PHONY: setup
setup: .venv/ready ## Make .venv and find Java, once

.PHONY: horovod
horovod: .venv/horovod ## Build Horovod against .venv's PyTorch, once per machine (about 3 minutes)

.PHONY: airflow
airflow: .venv-airflow/ready ## Make .venv-airflow and run the pipeline in a real Airflow (about 4 minutes)
	@$(ACTIVATE) python -m pytest tests/jobs/test_airflow.py $(ARGS)

.PHONY: run
run: .venv/ready ## Train on the handwritten digits, from PNG files to a saved model in out/
	@$(ACTIVATE) python jobs/digits.py out/digits
	@$(SUBMIT) jobs/train.py --images out/digits --image-size 8 --max-iter 200 --reg-param 0.001 --output out $(ARGS)

.PHONY: run-deep
run-deep: .venv/horovod ## Train a network on the handwritten digits through Horovod on Spark, two processes
	@$(ACTIVATE) python jobs/digits.py out/digits
	@$(SUBMIT) jobs/train_deep.py --images out/digits --image-size 8 --processes 2 --output out/deep $(ARGS)

.PHONY: test
test: .venv/horovod ## Run the tests
	@$(ACTIVATE) python -m pytest -m "not slow" $(ARGS)

.PHONY: test-all
test-all: .venv/horovod .venv-airflow/ready ## Run all tests, the slow ones too
	@$(ACTIVATE) python -m pytest $(ARGS)

.PHONY: lint
lint: .venv/ready ## Check style and types
	@$(ACTIVATE) ruff check . && ruff format --check . && mypy

.PHONY: format
format: .venv/ready ## Format the code
	@$(ACTIVATE) ruff check --fix --quiet . && ruff format .

.PHONY: docs
docs: .venv-docs/ready ## Build the documentation and the API reference in build/site/, strictly (half a minute)
	@.venv-docs/bin/python .ci/stage_docs.py
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet && echo "docs: build/site/index.html"

.PHONY: bench
bench: .venv/ready ## Compare with pyspark.ml on 1,000,000 rows x 100 features (about 10 minutes)
	@$(SUBMIT) jobs/bench/linear.py $(ARGS)

.PHONY: bench-grid
bench-grid: .venv/ready ## Compare a grid of 16 models in shared passes with one fit, and with 16
	@$(SUBMIT) jobs/bench/grid.py $(ARGS)

.PHONY: bench-folds
bench-folds: .venv/ready ## Compare cross-validation in shared passes with fold after fold, and with pyspark.ml's
	@$(SUBMIT) jobs/bench/folds.py $(ARGS)

.PHONY: bench-optimum
bench-optimum: .venv/ready ## Measure how close to the optimum fits end at their defaults, beside pyspark.ml (about 10 minutes)
	@$(SUBMIT) jobs/bench/optimum.py $(ARGS)

.PHONY: bench-warm-start
bench-warm-start: .venv/ready ## Count the steps from yesterday's model on data with 1% new rows
	@$(SUBMIT) jobs/bench/warm_start.py $(ARGS)

.PHONY: bench-engines
bench-engines: .venv/ready ## Compare the engines with each other and with pyspark.ml; growth from 250,000 to 4 million rows
	@$(SUBMIT) jobs/bench/engines.py $(ARGS)

.PHONY: bench-sparse
bench-sparse: .venv/ready ## Compare with pyspark.ml on 200,000 rows x 1,000,000 sparse features
	@$(SUBMIT) jobs/bench/sparse.py $(ARGS)

.PHONY: bench-local-steps
bench-local-steps: .venv/ready ## Count the bytes of local SGD and of gradient descent on limited links (about 5 minutes)
	@$(ACTIVATE) python jobs/bench/local_steps.py $(ARGS)

.PHONY: bench-compression
bench-compression: .venv/ready ## Time compressed sums against plain ones on limited links (about 5 minutes)
	@$(ACTIVATE) python jobs/bench/compression.py $(ARGS)

.PHONY: bench-images
bench-images: .venv/ready ## Compare image preprocessing with bare OpenCV
	@$(SUBMIT) jobs/bench/images.py $(ARGS)

.PHONY: bench-deep
bench-deep: .venv/horovod ## Compare training through Horovod on Spark with a plain PyTorch loop (about 4 minutes)
	@$(SUBMIT) jobs/bench/deep.py $(ARGS)

.PHONY: bench-transport
bench-transport: .venv/ready ## Measure what compression does to sums, shuffles, caches, Arrow and Parquet (about 3 minutes)
	@$(ACTIVATE) python jobs/bench/transport.py $(ARGS)

.PHONY: bench-codecs
bench-codecs: .venv/ready ## Compare codecs on real data
	@$(ACTIVATE) python jobs/bench/codecs.py $(ARGS)

.PHONY: dist
dist: .venv/ready ## Build the wheel, and an environment for --archives, in dist/
	@.ci/dist

.PHONY: clean
clean: ## Delete what the other commands made, .venv included
	@rm -rf .venv .venv-airflow .venv-docs out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
