# Every target makes its own .venv on first use; `make` alone lists targets and variables.
PYTHON     ?= python3
DATA_ROOT  ?= data
DATASET    ?= digits
BACKBONE   ?= simclr
METHOD     ?= simclr
RECIPE     ?=
ARCH       ?=
STEPS      ?= None
EPOCHS     ?= None
VIEWS      ?=
WEIGHTS    ?=
DEVICE     ?= auto
SHARD      ?= 1/1
KEY        ?=
POOL       ?= whole
PCA        ?= 50
HEAD       ?= ridge
STRATEGY   ?= random,entropy,least_confidence,margin,coreset,typiclust
SEEDS      ?= 10
SIZES      ?=
INITIAL    ?= 10
INITIAL_SET ?= random
BATCH      ?= 1
BUDGET     ?= 210
CANDIDATES ?= 10000
TRAIN_VIEWS ?= first
VALIDATION ?= None
LOG_SEEDS  ?= 0
LOG_EVERY  ?= 10
LOG_CANDIDATES ?= 2000
INPUTS     ?= step
TARGET     ?= cross_entropy
EXPLORE    ?= 30
TURNS      ?= 0
OWN        ?= 20
WORKERS    ?= 0
ENGINE     ?= processes
SCALE      ?= small
ONLY       ?=
ACTION     ?= ls
ARGS       ?=

RUN  := .venv/bin/python -m pipeline
FEATURES = --dataset '$(DATASET)' --backbone '$(BACKBONE)' --key '$(KEY)' --pool '$(POOL)' --validation-size $(VALIDATION) --workers $(WORKERS) --data-root '$(DATA_ROOT)'
TASK  = $(FEATURES) --pca $(PCA) --engine '$(ENGINE)'

.DEFAULT_GOAL := help
.PHONY: help install demo pretrain embed al surrogate suggest report heads queries strategies reproduce cache runs test bench-embed bench-al bench-strategies lint clean

help:  ## explain every target and variable
	@echo 'alcove: active learning on cached vision embeddings'
	@echo
	@echo 'Targets (each installs itself into .venv on first use):'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-17s %s\n", $$1, $$2}'
	@echo
	@echo 'Variables (make TARGET NAME=value; the defaults are in brackets):'
	@echo '  all        DATA_ROOT folder of everything alcove writes, or s3://BUCKET/PREFIX for features, logs and own weights [data]'
	@echo '  all but demo'
	@echo '             DATASET digits, folder:PATH, parquet:PATH, parquet:PATH?label=COLUMN, or, downloaded on first use,'
	@echo '                     cifar10, cifar100, svhn, fashion_mnist, tiny_imagenet, isic2019 [digits]'
	@echo '             BACKBONE simclr, simsiam, rotation, resnet18, resnet34, resnet50, vgg16, densenet201, dino, dino_b, dinov2, dinov2_b, dinov2_l,'
	@echo '                      dinov2_g (or with registers: dinov2_reg, ..., dinov2_g_reg), timm:MODEL, cifar_resnet18 (34, 50),'
	@echo '                      resnet34_simclr_cifar100; hyperparameters after colons: simclr:steps=1000:width=32 [simclr]'
	@echo '  pretrain   METHOD simclr, simsiam, rotation; hyperparameters after colons [simclr]'
	@echo '             RECIPE cpu, or a paper'"'"'s: supclust_cifar10, supclust_isic2019, ssl_meets_al, best_practices [cpu]'
	@echo '             ARCH convnet, resnet18, resnet34, resnet50 [the recipe'"'"'s]'
	@echo '             STEPS of the optimiser, or EPOCHS over the pool [the recipe'"'"'s]    DEVICE auto, cpu, cuda [auto]'
	@echo '  embed      VIEWS identity,hflip,sharpen,blur,crop,trivialaugment; crop*3 for three draws [the backbone'"'"'s own]'
	@echo '             WEIGHTS file.safetensors, .pth, .tar, .bin or random [the backbone'"'"'s own]'
	@echo '             DEVICE auto (all GPUs), cpu, cuda:1, cuda:0,cuda:2 [auto]'
	@echo '             SHARD i/n: the i-th of n workers that share the work on one cache, at once or not [1/1]'
	@echo '  al, surrogate, heads, queries'
	@echo '             KEY beginning of a cache key, where several match'
	@echo '             POOL whole, longtail:FACTOR, imbalanced:FACTOR, redundant:COPIES:IMAGES, subset:IMAGES or subset:10% [whole]'
	@echo '             HEAD ridge, solve, inv, pinv, truncated_pinv, linear, mlp, svm [ridge; heads: eight]; settings after colons,'
	@echo '             such as ridge:penalty=gcv:intercept=true:temperature=fitted or linear:recipe=supclust:start=warm'
	@echo '             VALIDATION training images kept for validation [a fifth, at most 1000]'
	@echo '             WORKERS processes, 0 for one per core [0]'
	@echo '             SEEDS a number or a range such as 5-9 [al: 10; surrogate: those it was not trained on; heads: 5; queries: the one seed 0]'
	@echo '  al, surrogate'
	@echo '             PCA dimensions kept, 0 for all [50]'
	@echo '             ENGINE processes, dask, or dask:tcp://HOST:8786, whose machines need the data root at the same path [processes]'
	@echo '  al         STRATEGY names, comma-separated, settings after colons, or all; make strategies lists them'
	@echo '             [random,entropy,least_confidence,margin,coreset,typiclust]'
	@echo '             INITIAL first labels [10]    BATCH labels per round [1]    BUDGET labels in all, or 5% of the pool [210]'
	@echo '             INITIAL_SET random, one_per_class, kmeans, kcenter, typical, or a strategy that needs no labels, such as probcover [random]'
	@echo '             CANDIDATES images drawn per round that may be queried [10000]'
	@echo '             TRAIN_VIEWS first, or all: every cached view of a labeled image is a row to learn from [first]'
	@echo '             LOG_SEEDS seeds below this number log dense look-ahead tables, for make surrogate RECIPE=gains [0]'
	@echo '             LOG_EVERY rounds between two logs [10]    LOG_CANDIDATES logged of a round at most [2000]'
	@echo '  surrogate  RECIPE returns: what the next rounds bring, from runs of random mixtures; gains: what one label'
	@echo '                    changes, from the logs of al; thesis: its own experiment, tables and figures [returns]'
	@echo '             EXPLORE runs of mixtures [30]    TURNS of learning from its own runs too [0]    OWN of them in each [20]'
	@echo '             DATASET, POOL comma-separated: one surrogate of all of them, tested on the first POOL    BUDGET to learn and to test with [210; thesis: 310]'
	@echo '             INPUTS standard, step, valid [step]    TARGET cross_entropy, accuracy [cross_entropy], of gains'
	@echo '             of thesis, BACKBONE=A,B HEAD=A,B [solve,ridge] SEEDS [5-14]'
	@echo '  suggest    BATCH images to suggest [50]    STRATEGY the one to ask [typiclust while labels are few, then surrogate]'
	@echo '             KEY, PCA and HEAD as for al    SEEDS the one seed [0]'
	@echo '  heads      SIZES numbers of random labels, comma-separated [10 to eight times the features'"'"' dimension]'
	@echo '             HEAD also listing: the thesis'"'"'s own lines, nothing checked'
	@echo '  queries    STRATEGY [typiclust,supclust]    BATCH [10]    BUDGET [100]    PCA, INITIAL and CANDIDATES as for al'
	@echo '             INITIAL_SET as for al, or own: each strategy chooses the first labels too [own]'
	@echo '             ARGS="--layout pca" for principal components instead of t-SNE'
	@echo '  reproduce  RECIPE thesis, supclust or ssl_meets_al    SCALE small: offline, in minutes, on any images; paper: its own settings [small]'
	@echo '             ONLY exhibits, such as 5.6,5.7 [all]    DATASET, BACKBONE in the places of the paper'"'"'s, comma-separated [the scale'"'"'s]'
	@echo '             SEEDS, BUDGET [the scale'"'"'s]    WORKERS, ENGINE, DEVICE as above'
	@echo '  strategies STRATEGY the one to show in full [all, briefly]'
	@echo '  cache      ACTION ls, verify or rm [ls]    KEY beginning of a cache key [all]'
	@echo '  runs       ACTION ls or show [ls]    KEY part of a run'"'"'s id, which show needs [all]'
	@echo '             DATASET, BACKBONE, HEAD, STRATEGY, POOL, SEEDS of the runs to list [all]'
	@echo '             ARGS="--sort seconds" or strategy for another order than by AUBC; ARGS="--csv FILE" for one row per run;'
	@echo '             ARGS="--mlflow sqlite:///mlflow.db" logs them to MLflow, each once'
	@echo '  every      ARGS more command-line options; see .venv/bin/alcove TARGET --help'

install: .venv/installed  ## make .venv with the pinned versions (about 7 GB)

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alcove needs Python 3.11 or later, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch .venv/installed

demo: install  ## all four stages on bundled digits, offline, CPU (5 minutes at most)
	$(RUN) demo --workers $(WORKERS) --data-root '$(DATA_ROOT)' $(ARGS)

pretrain: install  ## before stage one, on request: our own weights for the pool (embed does it when needed)
	$(RUN) pretrain --method '$(METHOD)' --dataset '$(DATASET)' --recipe '$(RECIPE)' --arch '$(ARCH)' --steps $(STEPS) --epochs $(EPOCHS) --device $(DEVICE) --data-root '$(DATA_ROOT)' $(ARGS)

embed: install  ## stage one: images -> features, once per backbone
	$(RUN) embed --dataset '$(DATASET)' --backbone '$(BACKBONE)' --views '$(VIEWS)' --weights '$(WEIGHTS)' --device $(DEVICE) --shard $(SHARD) --data-root '$(DATA_ROOT)' $(ARGS)

al: install  ## stage two: active learning, strategies x seeds, on cached features
	$(RUN) al $(TASK) --head '$(HEAD)' --strategy '$(STRATEGY)' --seeds '$(SEEDS)' --initial '$(INITIAL_SET)' --initial-size '$(INITIAL)' --batch-size $(BATCH) --budget '$(BUDGET)' --candidates $(CANDIDATES) --train-views $(TRAIN_VIEWS) --log-seeds $(LOG_SEEDS) --log-every $(LOG_EVERY) --log-candidates $(LOG_CANDIDATES) $(ARGS)

surrogate: install  ## stage three: learn which image to label next, and test it
	$(RUN) surrogate $(TASK) --recipe '$(if $(RECIPE),$(RECIPE),returns)' --explore $(EXPLORE) --turns $(TURNS) --own $(OWN) $(if $(filter-out file default,$(origin HEAD)),--head '$(HEAD)') $(if $(filter-out file default,$(origin BUDGET)),--budget '$(BUDGET)') --inputs $(INPUTS) --target $(TARGET) $(if $(filter-out file default,$(origin SEEDS)),--seeds '$(SEEDS)') $(ARGS)

suggest: install  ## which images to label next, of a folder with few labels or none: a list, and a page that shows them
	$(RUN) suggest --dataset '$(DATASET)' --backbone '$(BACKBONE)' --key '$(KEY)' --pca $(PCA) --head '$(HEAD)' $(if $(filter-out file default,$(origin STRATEGY)),--strategy '$(STRATEGY)') $(if $(filter-out file default,$(origin BATCH)),--batch-size $(BATCH)) $(if $(filter-out file default,$(origin SEEDS)),--seed '$(SEEDS)') --data-root '$(DATA_ROOT)' $(ARGS)

report: install  ## one HTML page of the runs (all, or those of DATASET= BACKBONE=), with files of its tables and figures
	$(RUN) report $(if $(filter-out file default,$(origin DATASET)),--dataset '$(DATASET)') $(if $(filter-out file default,$(origin BACKBONE)),--backbone '$(BACKBONE)') --data-root '$(DATA_ROOT)' $(ARGS)

heads: install  ## heads compared on random labels, without active learning: the thesis's figures 5.2 to 5.4
	$(RUN) heads $(FEATURES) $(if $(filter-out file default,$(origin HEAD)),--head '$(HEAD)') $(if $(filter-out file default,$(origin SEEDS)),--seeds '$(SEEDS)') --sizes '$(SIZES)' $(ARGS)

queries: install  ## what strategies query on a map of the pool, typicality against SUP: SUPClust's figures 3 and 4
	$(RUN) queries $(FEATURES) --pca $(PCA) --head '$(HEAD)' --initial-size '$(INITIAL)' --candidates $(CANDIDATES) $(if $(filter-out file default,$(origin STRATEGY)),--strategy '$(STRATEGY)') $(if $(filter-out file default,$(origin SEEDS)),--seed '$(SEEDS)') $(if $(filter-out file default,$(origin INITIAL_SET)),--initial '$(INITIAL_SET)') $(if $(filter-out file default,$(origin BATCH)),--batch-size $(BATCH)) $(if $(filter-out file default,$(origin BUDGET)),--budget '$(BUDGET)') $(ARGS)

strategies: install  ## list the query strategies, or show one in full (STRATEGY=)
	$(RUN) strategies $(if $(filter-out file default,$(origin STRATEGY)),'$(STRATEGY)') $(ARGS)

reproduce: install  ## a paper's tables and figures again (RECIPE=thesis, supclust, ssl_meets_al), its published numbers beside ours
	$(RUN) reproduce --recipe '$(RECIPE)' --scale $(SCALE) --only '$(ONLY)' $(if $(filter-out file default,$(origin DATASET)),--dataset '$(DATASET)') $(if $(filter-out file default,$(origin BACKBONE)),--backbone '$(BACKBONE)') $(if $(filter-out file default,$(origin SEEDS)),--seeds '$(SEEDS)') $(if $(filter-out file default,$(origin BUDGET)),--budget '$(BUDGET)') --workers $(WORKERS) --engine '$(ENGINE)' --device $(DEVICE) --data-root '$(DATA_ROOT)' $(ARGS)

cache: install  ## list the feature caches, or verify or rm one
	$(RUN) cache $(ACTION) --key '$(KEY)' --data-root '$(DATA_ROOT)' $(ARGS)

runs: install  ## list the stored runs (all, or those of DATASET= HEAD= STRATEGY= ...), or show one
	$(RUN) runs $(ACTION) --key '$(KEY)' $(foreach name,DATASET BACKBONE HEAD STRATEGY POOL SEEDS,$(if $(filter-out file default,$(origin $(name))),--$(shell echo $(name) | tr A-Z a-z) '$($(name))')) --data-root '$(DATA_ROOT)' $(ARGS)

test: install  ## the test suite (6 minutes at most)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

bench-embed: install  ## images/s of stage one beside the bare network and the loop one would write
	.venv/bin/python -m tests.benchmarks.embed $(ARGS)

bench-al: install  ## runs/s of stage two beside the thesis's procedure and plain loops (15 minutes)
	.venv/bin/python -m tests.benchmarks.al $(ARGS)

bench-strategies: install  ## query strategies beside scikit-activeml, at scale, and one label at a time (half an hour, 14 GB)
	.venv/bin/python -m tests.benchmarks.strategies $(ARGS)

lint: install  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

clean:  ## remove .venv; data stays
	rm -rf .venv
