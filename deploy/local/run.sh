#!/usr/bin/env bash
# Builds the service and shows it at work: a conversation goes in, events and raw objects come out.
# Stays until Ctrl-C; with --once it exits at once, 0 if everything came out. Leaves nothing running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

cargo build --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/lab" demo "$@"
