#!/usr/bin/env bash
# Measures ingress with release builds and a private Redis: as fast as it answers, at 500/s, beside slow
# senders, and at twice what it can do. Arguments: --seconds N, --beyond N, --json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

deploy/local/install.sh
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

cargo build --locked --release --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/lab" bench "$@"
