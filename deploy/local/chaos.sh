#!/usr/bin/env bash
# Real servers and programs, faults at random moments, and a checker that tries to prove the promises
# wrong. Exit status 1 if it does.
#   chaos.sh [--minutes N] [--seed S] [--json]   a seed repeats the faults of another run
#   CHAOS_BUILD=debug chaos.sh …                 debug builds instead of release ones
# All options: chaos.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh --for bench
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

build=${CHAOS_BUILD:-release}
if [ "$build" = release ]; then
    cargo build --locked --release --workspace --bins
else
    cargo build --locked --workspace --bins
fi
exec "${CARGO_TARGET_DIR:-target}/$build/lab" chaos "$@"
