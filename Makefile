# The two commands are `make demo` and `make test`; both install what is missing first.
SHELL := /bin/bash
CARGO ?= cargo
export VITA_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vita-stream

.PHONY: demo test lint bench doc setup clean

demo: setup
	$(CARGO) build --workspace --release --bin vita --example rtsp_server
	scripts/demo

# One thread a model: the tests run beside each other, and candle's pools spin.
test: export CANDLE_NUM_THREADS = 1
test: export RAYON_NUM_THREADS = 1
test: setup
	scripts/test

lint: setup doc
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	scripts/check-cuda

bench: setup
	scripts/bench

doc: setup
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

setup:
	@scripts/setup

clean:
	$(CARGO) clean
