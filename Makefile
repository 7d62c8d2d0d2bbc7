# make setup | demo | test | corpus | lint | bench | clean. Each starts what it needs and stops what it started.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: setup demo test corpus corpus-python test-rust test-unit test-integration lint check-help format crash-test api-test cas-image schema bench bench-attestation bench-runtime soak fuzz lock clean bench-volume crash-volume hostile-volume soak-volume bench-binaryfs bench-convert

export PATH := $(CURDIR)/.venv/bin:$(HOME)/.cargo/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

STAMP := .venv/.installed
NATIVE := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock .cargo/config.toml setup.py pyproject.toml

setup: $(STAMP)

$(STAMP): requirements.lock $(NATIVE)
	scripts/system-packages.sh
	test -x .venv/bin/python || python3 -m venv .venv
	pip install --quiet --require-hashes -r requirements.lock
	pip install --quiet --no-deps --no-build-isolation -e .
	python -m compileall -q src/sconify  # pip does, for what is not installed for editing
	touch $@

demo: setup
	scripts/with-docker.sh examples/flask/demo.sh

test: setup lint test-rust
	scripts/with-docker.sh pytest

test-rust: setup
	cargo test --quiet --locked

test-unit: setup
	pytest tests/unit

lint: setup
	ruff check .
	ruff format --check .
	mypy
	cargo fmt --all --check
	cargo clippy --quiet --locked --all-targets -- -D warnings

# Real programs in containers, native and encrypted, compared; `make test` runs the quick ones of them.
corpus: setup
	scripts/with-docker.sh pytest -vv -m "corpus or docker" tests/e2e/corpus

# Python's own regression suite alone.
corpus-python: setup
	scripts/with-docker.sh pytest -vv -m "corpus or docker" tests/e2e/corpus/test_python.py

# What --help says, against the seed's list of options and the README.
check-help: setup
	pytest tests/unit/cli/test_help.py tests/unit/cli/test_config_file.py

format: setup
	ruff check --fix .
	ruff format .
	cargo fmt --all

crash-test: setup
	SCONIFY_CRASH_WRITES=1000 pytest tests/hostile/cas/test_crashes.py

# Hundreds of random requests for each operation of the CAS's APIs: none may make it fail.
EXAMPLES ?= 200
api-test: setup
	SCONIFY_API_EXAMPLES=$(EXAMPLES) pytest tests/integration/cas/test_cas_openapi.py

# The CAS as a container image, made on Debian's Python.
cas-image: setup
	deploy/build-image.sh sconify-cas $(BASE)

schema: setup
	python -m sconify.policy.schema > docs/session.schema.json
	python -m sconify.cas.openapi > docs/openapi.json

bench: setup
	scripts/with-docker.sh python bench/flask.py
	python -m bench.cas

bench-convert: setup
	scripts/with-docker.sh python -m bench.convert

bench-binaryfs: setup
	scripts/with-docker.sh python -m bench.binaryfs

bench-attestation: setup
	python bench/attestation.py

# Next to a plain directory and to gocryptfs, on the disk of this directory.
bench-volume: setup
	cargo bench --quiet --locked --package sconify-volume --bench volume -- $(CURDIR)/target
	scripts/with-docker.sh python -m bench.pgbench $(CURDIR)/target

# Containers that are killed while they write to a volume, ROUNDS times each.
ROUNDS ?= 500
crash-volume: setup
	SCONIFY_VOLUME_ROUNDS=$(ROUNDS) scripts/with-docker.sh pytest -s -o timeout=0 -m "docker and not corpus" tests/e2e/volumes/test_crashes.py

# A store of which one byte was flipped, FLIPS times, each for a start of a container.
FLIPS ?= 500
hostile-volume: setup
	SCONIFY_VOLUME_FLIPS=$(FLIPS) scripts/with-docker.sh pytest -s -o timeout=0 -m docker tests/hostile/test_volumes.py

# Hundreds of kills, thousands of flipped bytes, long random tests.
soak-volume: setup
	SCONIFY_CRASH_ROUNDS=500 SCONIFY_FLIPS=5000 SCONIFY_FSX_STEPS=20000 PROPTEST_CASES=1000 cargo test --quiet --locked --package sconify-volume

# Ten minutes for each format of evidence, all at once; FUZZ_SECONDS shortens it.
fuzz: setup
	python -m tests.fuzz_evidence --seconds=$(or $(FUZZ_SECONDS),600)
	python -m tests.fuzz_sessions --seconds=$(or $(FUZZ_SECONDS),600)

bench-runtime: setup
	scripts/with-docker.sh python -m bench.runtime

# Two services under load for MINUTES, their workers killed at random; nothing may leak.
MINUTES ?= 60
soak: setup
	scripts/with-docker.sh python -m bench.soak --minutes $(MINUTES)

lock:
	uv pip compile --quiet --generate-hashes --extra dev pyproject.toml -o requirements.lock
	cargo update

clean:
	rm -rf .venv target build src/*.egg-info src/sconify/_shield*.so src/sconify/runtime/sconify-runtime
