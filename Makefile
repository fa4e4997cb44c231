# The commands of sparkopt. Each sets up what it needs; a second call sets up nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A locale that every machine has: Bash, which starts Spark too, warns of one that is missing.
export LC_ALL := C.UTF-8
ACTIVATE := source .venv/environment &&
# spark-submit reads a job's output through a pipe, so a job cannot see the terminal by itself.
PROGRESS := { [ ! -t 1 ] || export SPARKOPT_PROGRESS=$${SPARKOPT_PROGRESS:-1}; } &&
SUBMIT := $(ACTIVATE) $(PROGRESS) spark-submit --properties-file conf/local.conf
# What follows --properties-file goes to the job: make run ARGS="--optimizer adam --max-iter 300"
ARGS ?=

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

# Each purpose has its own list of pinned packages, and contains the purposes above it. All share .venv.
SETUP := .ci/setup .ci/install .ci/uv_settings.py setup.py pyproject.toml

.venv/run: requirements/run.txt $(SETUP)
	@.ci/setup run

.venv/deep: .venv/run requirements/deep.txt
	@.ci/setup deep

.venv/test: .venv/deep requirements/test.txt
	@.ci/setup test

.venv/horovod: .venv/deep .ci/horovod
	@.ci/horovod && touch $@

.venv-airflow/ready: .venv/run .ci/airflow requirements/airflow.txt
	@.ci/airflow && touch $@

APART := $(addprefix .venv-,$(addsuffix /ready,client dask flink keras ray s3))
$(APART): .venv-%/ready: .venv/run .ci/apart requirements/%.txt
	@.ci/apart $* && touch $@

.venv-docs/ready: .venv/run .ci/docs requirements/docs.txt
	@.ci/docs && touch $@

.PHONY: setup
setup: .venv/test ## Set up all that a contributor needs; the other commands set up no more than they need

.PHONY: lock
lock: .venv/run ## Pin what requirements/*.in ask for; ARGS=--upgrade takes the newest versions
	@.ci/lock $(ARGS)

.PHONY: horovod
horovod: .venv/horovod ## Build Horovod against .venv's PyTorch, once per machine (about 3 minutes)

.PHONY: airflow
airflow: .venv/test .venv-airflow/ready ## Make .venv-airflow and run the pipeline in a real Airflow (about 4 minutes)
	@$(ACTIVATE) python -m pytest tests/jobs/test_airflow.py $(ARGS)

.PHONY: test-s3
test-s3: .venv/test .venv-s3/ready ## Make .venv-s3 and run the tests against an S3 server on this machine (about 3 minutes)
	@$(ACTIVATE) python -m pytest tests/s3 $(ARGS)

.PHONY: test-client
test-client: .venv/test .venv-client/ready ## Make .venv-client and run Spark Connect's tests with pyspark-client (about 3 minutes)
	@$(ACTIVATE) python -m pytest tests/connect/test_client_only.py $(ARGS)

.PHONY: test-dask
test-dask: .venv-dask/ready ## Make .venv-dask and train on Dask's frames, while its workers are killed (about 3 minutes)
	@PYTHONPATH=$$PWD .venv-dask/bin/python -m pytest tests/frameworks -k dask $(ARGS)

.PHONY: test-ray
test-ray: .venv-ray/ready ## Make .venv-ray and train on Ray's datasets, while its workers are killed (about 4 minutes)
	@PYTHONPATH=$$PWD .venv-ray/bin/python -m pytest tests/frameworks -k ray $(ARGS)

.PHONY: test-flink
test-flink: .venv-flink/ready ## Make .venv-flink and train on tables of PyFlink, score them in its jobs, while processes are killed (about 15 minutes)
	@PYTHONPATH=$$PWD .venv-flink/bin/python -m pytest tests/frameworks -k flink $(ARGS)

.PHONY: test-keras
test-keras: .venv/run .venv-keras/ready ## Make .venv-keras and train networks of Keras on PyTorch, JAX and TensorFlow (about 8 minutes)
	@$(ACTIVATE) for backend in torch jax tensorflow; do \
		KERAS_BACKEND=$$backend PYSPARK_PYTHON=$$PWD/.venv-keras/bin/python PYTHONPATH=$$PWD \
			.venv-keras/bin/python -m pytest tests/keras $(ARGS); done

.PHONY: run
run: .venv/run ## Train on the handwritten digits, from PNG files to a saved model in out/
	@$(ACTIVATE) python jobs/digits.py out/digits
	@$(ACTIVATE) sparkopt train --images out/digits --image-size 8 --max-iter 200 --reg-param 0.001 --output out --output-mode overwrite $(ARGS)
	@printf '%s\n' '' 'Next:' \
		'  score images     source .venv/environment && sparkopt score --model out --images out/digits --image-size 8 --output out/scored' \
		'  open a notebook  source .venv/environment && pip install jupyterlab && jupyter lab notebooks/quickstart.ipynb' \
		'  run the tests    make test'

.PHONY: run-deep
run-deep: .venv/horovod ## Train a network on the handwritten digits through Horovod on Spark, two processes
	@$(ACTIVATE) python jobs/digits.py out/digits
	@$(SUBMIT) jobs/train_deep.py --images out/digits --image-size 8 --processes 2 --output out/deep --output-mode overwrite $(ARGS)

# Tests have tiers by what they need (tests/tiers.py). Each worker of the first two has a process, and one Spark session at most.
WORKERS ?= $(shell echo $$(( $$(nproc) < 8 ? $$(nproc) : 8 )))
PYTEST := $(ACTIVATE) python -m pytest
PARALLEL := -n $(WORKERS) --dist worksteal

.PHONY: lint
lint: .venv/test ## Check style and types
	@$(ACTIVATE) ruff check . && ruff format --check . && mypy

.PHONY: unit
unit: .venv/test
	@$(PYTEST) -m unit $(PARALLEL) $(ARGS)

.PHONY: check
check: .venv/test ## Check style and types, and run the tests that start no JVM (2 minutes)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit

.PHONY: test
test: check ## Run these checks, and the tests that share a Spark session (10 minutes)
	@$(PYTEST) -m spark $(PARALLEL) $(ARGS)

.PHONY: system
system: .venv/test .venv/horovod
	@$(PYTEST) -m system $(ARGS)

.PHONY: test-all
test-all: .venv-airflow/ready .venv-s3/ready .venv-client/ready .venv-keras/ready test ## Run all tests: clusters, kills, Horovod, Connect, notebooks, Airflow, S3, browsers too
	@$(MAKE) --no-print-directory system
	@$(MAKE) --no-print-directory test-s3
	@$(MAKE) --no-print-directory test-keras

.PHONY: coverage
coverage: .venv/test ## Measure branch coverage by package; ARGS="tests/codecs" chooses tests
	@.ci/coverage $(ARGS)

.PHONY: format
format: .venv/test ## Format the code
	@$(ACTIVATE) ruff check --fix --quiet . && ruff format .

.PHONY: docs
docs: .venv-docs/ready ## Build the documentation and the API reference in build/site/, strictly (half a minute)
	@.venv-docs/bin/python .ci/stage_docs.py
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet && echo "docs: build/site/index.html"

.PHONY: check-gpu
check-gpu: .venv/deep ## Try on this machine's GPU what tests on CPUs cannot, in 8 minutes at most; without one it says so
	@$(ACTIVATE) python jobs/check_gpu.py $(ARGS)

.PHONY: bench
bench: .venv/run ## Compare with pyspark.ml on 1,000,000 rows x 100 features (about 10 minutes)
	@$(SUBMIT) jobs/bench/linear.py $(ARGS)

.PHONY: bench-cold
bench-cold: .venv/run ## Time whole processes from Parquet to a saved model: sparkopt, pyspark.ml, scikit-learn (about 10 minutes)
	@$(ACTIVATE) python jobs/bench/cold.py $(ARGS)

.PHONY: bench-machine
bench-machine: .venv/run ## Time whole processes on one machine without Spark, beside scikit-learn; ARGS="--others PYTHON"
	@$(ACTIVATE) python jobs/bench/machine.py $(ARGS)

.PHONY: bench-raw
bench-raw: .venv/run ## Time whole processes from raw rows to a saved model and scores, beside scikit-learn and pyspark.ml (about 15 minutes)
	@$(ACTIVATE) python jobs/bench/raw.py $(ARGS)

.PHONY: bench-memory
bench-memory: .venv/run ## Train on 12 GB of rows in a process tree with 3 GB of memory (about 6 minutes, 27 GB of disk)
	@$(ACTIVATE) python jobs/bench/larger_than_memory.py $(ARGS)

.PHONY: bench-ingest
bench-ingest: .venv/run ## Time from a table to a model, by how the table holds its features, beside pyspark.ml (about 5 minutes)
	@$(SUBMIT) jobs/bench/ingest.py $(ARGS)

.PHONY: bench-grid
bench-grid: .venv/run ## Compare a grid of 16 models in shared passes with one fit, and with 16
	@$(SUBMIT) jobs/bench/grid.py $(ARGS)

.PHONY: bench-folds
bench-folds: .venv/run ## Compare cross-validation in shared passes with fold after fold, and with pyspark.ml's
	@$(SUBMIT) jobs/bench/folds.py $(ARGS)

.PHONY: bench-keras
bench-keras: .venv/run .venv-keras/ready ## Time epochs of networks of Keras on JAX beside plain Keras (about 3 minutes)
	@$(ACTIVATE) KERAS_BACKEND=$${KERAS_BACKEND:-jax} PYSPARK_PYTHON=$$PWD/.venv-keras/bin/python PYTHONPATH=$$PWD \
		.venv-keras/bin/python jobs/bench/keras_epoch.py $(ARGS)

.PHONY: bench-frameworks
bench-frameworks: .venv-dask/ready ## Time Dask's frames to a model, beside one machine and scikit-learn (about 3 minutes)
	@PYTHONPATH=$$PWD .venv-dask/bin/python jobs/bench/frameworks.py $(ARGS)

.PHONY: bench-flink
bench-flink: .venv-flink/ready ## Measure what PyFlink carries: a fit, scores, and learning from a stream (about 3 minutes)
	@PYTHONPATH=$$PWD .venv-flink/bin/python jobs/bench/flink.py $(ARGS)

.PHONY: bench-path
bench-path: .venv/test ## Compare a lasso path of 100 values with 100 fits, and with scikit-learn's (about 10 minutes)
	@$(ACTIVATE) python jobs/bench/path.py $(ARGS)

.PHONY: bench-drop-in
bench-drop-in: .venv/run ## Compare a script of pyspark.ml with the same script by python -m sparkopt
	@$(ACTIVATE) python jobs/bench/drop_in.py $(ARGS)

.PHONY: bench-score
bench-score: .venv/run ## Compare scoring with pyspark.ml's models: Vectors, assembled, cached, arrays, sparse (5 minutes)
	@$(SUBMIT) jobs/bench/score.py $(ARGS)

.PHONY: bench-optimum
bench-optimum: .venv/run ## Measure how close to the optimum fits end at their defaults, beside pyspark.ml (about 10 minutes)
	@$(SUBMIT) jobs/bench/optimum.py $(ARGS)

.PHONY: bench-optimizers
bench-optimizers: .venv/run ## Count the steps that every optimiser needs at its defaults, without Spark (about 5 minutes)
	@$(ACTIVATE) python jobs/bench/optimizers.py $(ARGS)

.PHONY: bench-warm-start
bench-warm-start: .venv/run ## Count the steps from yesterday's model on data with 1% new rows
	@$(SUBMIT) jobs/bench/warm_start.py $(ARGS)

.PHONY: bench-engines
bench-engines: .venv/run ## Compare the engines with each other and with pyspark.ml; growth from 250,000 to 4 million rows
	@$(SUBMIT) jobs/bench/engines.py $(ARGS)

.PHONY: bench-sparse
bench-sparse: .venv/run ## Compare with pyspark.ml on 200,000 rows x 1,000,000 sparse features
	@$(SUBMIT) jobs/bench/sparse.py $(ARGS)

.PHONY: bench-local-steps
bench-local-steps: .venv/run ## Count the bytes of local SGD and of gradient descent on limited links (about 5 minutes)
	@$(ACTIVATE) python jobs/bench/local_steps.py $(ARGS)

.PHONY: bench-recovery
bench-recovery: .venv/deep ## Time what follows the loss of a process: from memory, from checkpoints; ARGS="--torchft PYTHON" (about 3 minutes)
	@$(ACTIVATE) python jobs/bench/recovery.py $(ARGS)

.PHONY: bench-compression
bench-compression: .venv/run ## Time compressed sums against plain ones on limited links (about 5 minutes)
	@$(ACTIVATE) python jobs/bench/compression.py $(ARGS)

.PHONY: bench-images
bench-images: .venv/deep ## Compare image preprocessing with bare OpenCV
	@$(SUBMIT) jobs/bench/images.py $(ARGS)

.PHONY: bench-deep
bench-deep: .venv/horovod ## Compare training through Horovod on Spark with a plain PyTorch loop (about 4 minutes)
	@$(SUBMIT) jobs/bench/deep.py $(ARGS)

.PHONY: bench-transport
bench-transport: .venv/test ## Measure what compression does to sums, shuffles, caches, Arrow and Parquet (about 3 minutes)
	@$(ACTIVATE) python jobs/bench/transport.py $(ARGS)

.PHONY: bench-codecs
bench-codecs: .venv/test ## Compare codecs on real data
	@$(ACTIVATE) python jobs/bench/codecs.py $(ARGS)

.PHONY: dist
dist: .venv/run $(if $(findstring deep,$(DIST_EXTRAS)),.venv/deep) ## Build the wheel, the source distribution, and an environment for --archives, in dist/
	@.ci/dist

.PHONY: clean
clean: ## Delete what the other commands made, .venv included
	@rm -rf .venv .venv-* out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
