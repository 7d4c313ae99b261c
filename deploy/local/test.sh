#!/usr/bin/env bash
# Runs all tests against real servers, which are started for the run and gone afterwards. Arguments
# go to cargo test: deploy/local/test.sh -p tests --test order
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh --for test
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

cargo build --locked --workspace --bins
# Tests wait more than they compute. With twice as many as cores some don't come to their end in time.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$(($(nproc) + 1))}"
exec "${CARGO_TARGET_DIR:-target}/debug/lab" run -- cargo test --locked --workspace "$@"
