# make quickstart         a first run, on a machine with nothing but Python and make
# make test               lint, types, tests: at most 6 minutes on a fresh machine with two cores
# make test-commands      whole commands, many as processes; pages as typed; notebooks; the wheel
# make faults             kills, full disks, made-up files: a little of each (.ci/run)
# make test-faults        all of them, up to an hour
# make test-torch-sparse  builds torch-sparse (15 to 25 minutes the first time) and tests its solver
# make test-usb           the extension of Microsoft's USB, in an environment of its own
# make test-browser       pages in headless Chromium, which it installs (Debian, root); export to ONNX
# make test-distributed   several processes: the same labels and network, faults; three minutes
# make docs               the site, into site/, in an environment of its own; every link checked
# make test-slow          studies of minutes each
# make bench              speed against the usual procedure and scikit-learn
# make bench-labels       accuracy of labels from few labels, with and without the default's steps
# make bench-photos       CIFAR-10 from images to labels, timed: up to 15 minutes on two cores
# make bench-peers        beside graphlearning, ModSSC, scikit-learn, cleanlab, in an environment of its own
# make bench-suggest      accuracy by who chose the points that were labelled
# make bench-calibration  how good probabilities of labels and scores of unknown classes are
# make gpu                on a machine with an NVIDIA card: checks, speed, rows of the paper (needs DATA)

PYTHON ?= python3
BIN := .venv/bin
# Compiling every file of every package would take half as long as installing them.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
EXTRAS := photos,huggingface,amg,nn-descent,parquet,tensorboard,mlflow,label,report,tune,test
WHEELS := .venv/wheels

.PHONY: quickstart test unit test-commands faults test-faults test-torch-sparse test-usb test-browser \
    test-distributed test-slow docs bench bench-labels bench-calibration bench-suggest bench-photos bench-peers gpu \
    lint types clean
.DELETE_ON_ERROR:

include usb.mk

quickstart: .venv/base
	$(BIN)/dlp run recipes/digits.toml --out runs/quickstart --overwrite
	@echo "So that your shell finds dlp: . $(BIN)/activate"

# Types and tests side by side: mypy takes 45 s of one core where nothing is cached.
test: lint
	$(MAKE) -j 2 types unit

# One process per core, one thread per process: with small tensors threads mostly wait for each other.
unit: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto \
	    -m "not slow and not browser and not commands and not distributed" \
	    --ignore tests/usb --ignore tests/faults --durations=15

test-commands: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m commands --ignore tests/usb --ignore tests/faults

faults: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m faults tests/faults

# Moments of each signal and sizes of a full disk; inputs of each kind
MOMENTS ?= 20
EXAMPLES ?= 1000
test-faults: .venv/test
	DLP_FAULT_MOMENTS=$(MOMENTS) DLP_FUZZ_EXAMPLES=$(EXAMPLES) OMP_NUM_THREADS=1 \
	    $(BIN)/python -m pytest -n auto --dist loadfile --durations=10 -m faults tests/faults

test-torch-sparse: .venv/torch-sparse
	$(BIN)/python -c 'import torch_sparse'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m torch_sparse --ignore tests/usb

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

test-browser: .venv/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' tests/photos/test_export.py \
	    tests/training/test_finetuning.py tests/bench/test_suites.py

# One after the other: each starts processes of its own.
test-distributed: .venv/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "distributed and not slow" tests/distributed --durations=5

# The extra's packages alone: MkDocs reads the package's source and imports none of it.
docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "The site is in site/; it opens without a server: site/index.html"

.venv-docs/ready: pyproject.toml
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > .venv-docs/packages.txt
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
	    --requirement .venv-docs/packages.txt
	@touch $@

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow

bench: .venv/test
	for script in $(filter-out benchmarks/gpu_speed.py benchmarks/loading_speed.py,$(wildcard benchmarks/*_speed.py)); do $(BIN)/python $$script || exit 1; done

# DATA: a folder with cifar10/ (Parquet) and splits/lp_deepssl.npz; GPU_SECONDS: for the rows.
GPU_SECONDS ?= 300
gpu: .venv/test
	$(BIN)/python benchmarks/gpu_check.py
	$(BIN)/python benchmarks/gpu_speed.py
	$(BIN)/python benchmarks/gpu_rows.py --seconds $(GPU_SECONDS) --out runs/gpu

# Reads three files of ../shared/data/embeddings; of another folder with DATA=FOLDER
bench-labels: .venv/test
	$(BIN)/python benchmarks/label_quality.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/audit_quality.py $(if $(DATA),--data $(DATA))

bench-suggest: .venv/test
	$(BIN)/python benchmarks/suggest_quality.py $(if $(DATA),--data $(DATA))

# Reads cifar10/ and embeddings/ of ../shared/data; of another folder with DATA=FOLDER
bench-photos: .venv/test
	$(BIN)/python benchmarks/photos.py $(if $(DATA),--data $(DATA))

PEERS := .venv-peers/bin
PEER_PACKAGES := graphlearning==1.7.5 annoy modssc==1.2.2 'cleanlab[datalab]==2.9.0'
bench-peers: .venv-peers/ready
	$(PEERS)/python -m benchmarks.peers $(if $(DATA),--data $(DATA))
	$(PEERS)/python -m benchmarks.peers.wrong_labels $(if $(DATA),--data $(DATA))
	$(PEERS)/python -m benchmarks.peers.selection $(if $(DATA),--data $(DATA))

.venv-peers/ready: pyproject.toml Makefile
	test -x $(PEERS)/python || $(PYTHON) -m venv .venv-peers
	$(PEERS)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable . \
	    $(PEER_PACKAGES)
	@touch $@

bench-calibration: .venv/test
	$(BIN)/python benchmarks/calibration.py $(if $(DATA),--data $(DATA))

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "dlp-plugins needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/base: .venv/bin/python pyproject.toml
	@echo "Installing into .venv; the first time this downloads PyTorch, a few minutes."
	$(PIP) --editable '.[photos,label,report]'
	@touch $@

.venv/test: .venv/bin/python pyproject.toml
	@echo "Installing into .venv; the first time this downloads PyTorch, a few minutes."
	$(PIP) --editable '.[$(EXTRAS)]'
	@touch .venv/base $@

.venv/browser: .venv/test
	@{ command -v chromium && command -v chromedriver; } >/dev/null || { \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core; } || \
	    { echo "make test-browser needs Chromium and ChromeDriver: chromium and chromedriver on the path"; exit 1; }
	$(PIP) --editable '.[browser,export,adapters]'
	@touch $@

# torch-scatter and torch-sparse are compiled against the torch that is installed; pip keeps the
# wheels. One that was built for another torch does not load, and is then built again.
.venv/torch-sparse: .venv/test
	@echo "Building torch-scatter and torch-sparse; the first time this takes 15 to 25 minutes."
	$(PIP) 'setuptools<82' wheel
	$(call build_sparse,)
	$(BIN)/python -c 'import torch_sparse' 2>/dev/null || { $(call build_sparse,--no-cache-dir); }
	$(BIN)/python -c 'import torch_sparse'
	@touch $@

define build_sparse
	for p in torch-scatter torch-sparse; do \
	    $(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	        $(1) --wheel-dir $(WHEELS) $$p & pids="$$pids $$!"; \
	done; for pid in $$pids; do wait $$pid || exit 1; done; \
	$(PIP) --force-reinstall --no-deps $(WHEELS)/*.whl
endef

clean:
	rm -rf .venv .venv-usb .venv-peers .venv-docs site runs
