#!/usr/bin/env bash
# Runs all tests against real servers, which are started for the run and gone afterwards. Arguments
# go to cargo test: deploy/local/test.sh -p tests --test order
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh --for test
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

# Tests wait more than they compute: for leases, pauses, servers that start.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((2 * $(nproc)))}"

cargo build --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/lab" run -- cargo test --locked --workspace "$@"
