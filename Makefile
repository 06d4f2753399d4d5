# Two commands: `make run` shows the door at work, `make test` proves it. Each recipe is a line one could type.
.PHONY: run test setup peers lint tests fuzz
.NOTPARALLEL:

run: setup
	cargo run --release --locked -- demo

test: setup lint peers tests fuzz

setup:
	@.ci/setup

peers: setup
	tests/lab/setup.sh

lint:
	@.ci/optional fmt --check
	@.ci/optional clippy --locked --all-targets -- -D warnings
	@.ci/optional deny --locked check licenses bans sources

tests:
	tests/lab/test.sh --locked

# Not --release: overflow checks stay on, and no second build is needed.
fuzz:
	SIPDOOR_FUZZ=20000000 cargo test --locked --test mutations -- --nocapture
