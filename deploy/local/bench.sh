#!/usr/bin/env bash
# Measures with release builds and private servers, all on this machine: compare figures of one run only.
#   bench.sh compare [--runs N]     ingress beside the same work in Node (express, fastify), bare hyper, redis-benchmark
#   bench.sh ingress [--seconds N] [--beyond N]
#                                   as fast as it answers, at 500/s, beside slow senders, at twice what it can do
#   bench.sh attack [--seconds N]   at 500/s beside 12,000 idle and slow connections, then a flood of unsigned bodies too
#   bench.sh path [--runs N]        from Meta's post to the event on the queue, at 500/s and at 1/s
#   bench.sh worker [--runs N]      a full stream, beside bare RabbitMQ and the bare store
#   bench.sh media                  how long files take, and what others notice of large ones and of a history
#   bench.sh isolation              what an account notices of another one's flood
#   bench.sh scale                  how costs grow: batch, connections, accounts, size, partitions, backlog, workers
#   bench.sh gate                   instructions of a text, against the figures in tests/src/bench/gate.rs: fails if it
#                                   has become dearer; counts the debug build, in a minute or two
#   bench.sh all                    all but the gate, one after the other
# Each takes --json; compare, path, worker and scale --seconds N too. `all` writes JSON and a plot to target/bench/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

parts=(compare ingress attack path worker media isolation scale)
what=${1:-all}
[ $# = 0 ] || shift
case " ${parts[*]} gate all " in
    *" $what "*) ;;
    *)
        echo "bench.sh: $what can't be measured: ${parts[*]}, gate or all" >&2
        exit 2
        ;;
esac

deploy/local/install.sh --for bench
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")

if [ "$what" = gate ]; then
    cargo build --locked --workspace --bins
    exec "$target/debug/lab" run -- "$target/debug/lab" bench gate "$@"
fi
cargo build --locked --release --workspace --bins
lab="$target/release/lab"

# The versions that the published figures were measured with.
baselines() {
    export BENCH_NODE_MODULES="$target/baselines-express-4"
    [ -d "$BENCH_NODE_MODULES/node_modules/ioredis" ] && return
    command -v npm >/dev/null || {
        echo "bench.sh: npm is missing, which installs express, fastify and ioredis" >&2
        exit 1
    }
    mkdir -p "$BENCH_NODE_MODULES"
    npm install --no-audit --no-fund --no-package-lock --silent --prefix "$BENCH_NODE_MODULES" \
        express@4.18.3 fastify@5.12.8 ioredis@6.0.0 >&2
}

measure() {
    local part=$1
    shift
    case "$part" in
        ingress | attack) "$lab" bench "$part" "$@" ;;
        compare)
            baselines
            "$lab" bench runs compare "$@"
            ;;
        path | worker | scale) "$lab" run -- "$lab" bench runs "$part" "$@" ;;
        media | isolation) "$lab" run -- "$lab" bench "$part" "$@" ;;
    esac
}

if [ "$what" != all ]; then
    measure "$what" "$@"
    exit
fi
mkdir -p "$target/bench"
for part in "${parts[@]}"; do
    echo "== $part" >&2
    case "$part" in
        compare | path | worker | scale) measure "$part" --out "$target/bench/$part.json" "$@" ;;
        *) measure "$part" ;;
    esac
done
