#!/usr/bin/env bash
# Measures with release builds and private servers.
#   bench.sh [ingress] [--seconds N] [--beyond N] [--json]   as fast as it answers, at 500/s, beside slow senders, at
#                                                            twice what it can do
#   bench.sh isolation [--json]                              what an account notices of another one's flood
#   bench.sh media [--json]                                  how long files take, and what others notice of large ones
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

what=ingress
case "${1:-}" in
    ingress | isolation | media)
        what=$1
        shift
        ;;
    "" | --*) ;;
    *)
        echo "bench.sh: $1 can't be measured: ingress, isolation or media" >&2
        exit 2
        ;;
esac

deploy/local/install.sh
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

cargo build --locked --release --workspace --bins
lab="${CARGO_TARGET_DIR:-target}/release/lab"
if [ "$what" = ingress ]; then
    exec "$lab" bench ingress "$@"
fi
exec "$lab" run -- "$lab" bench "$what" "$@"
