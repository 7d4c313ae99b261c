#!/usr/bin/env bash
# Builds the service and shows it at work on this machine: webhooks in, events out, and what happens while a server or a
# program is killed. Stays up to be tried until Ctrl-C; with --once it exits after the tour, 0 if all was as it should be.
# Leaves nothing running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'run: %s\n' "$*" >&2; }

deploy/local/install.sh --for demo
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"

# Only these programs, and quickly compiled; what the tests have built serves the demo too.
programs="${CARGO_TARGET_DIR:-target}/debug"
build=(cargo build --locked --workspace --bin ingress --bin worker --bin lab --bin simulator)
if [ ! -x "$programs/lab" ]; then
    programs="${CARGO_TARGET_DIR:-target}/quick"
    build+=(--profile quick)
fi
[ -x "$programs/lab" ] || say "building: the first time it takes some minutes"
if [ -t 2 ]; then
    "${build[@]}"
else
    # A line of cargo's progress every ten seconds, and what else it says but the names of what it builds.
    next=0
    CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=70 "${build[@]}" 2>&1 | tr '\r' '\n' \
        | while IFS= read -r line; do
            case "$line" in
                *"Building ["*)
                    [ "$SECONDS" -lt "$next" ] && continue
                    next=$((SECONDS + 10))
                    say "built $(sed 's/.*] *\([0-9]*\)\/\([0-9]*\).*/\1 of \2/' <<<"$line")"
                    ;;
                *Compiling* | *Downloaded* | *"Downloading ["* | "") ;;
                *) printf '%s\n' "$line" >&2 ;;
            esac
        done
fi
exec "$programs/lab" demo "$@"
