#!/usr/bin/env bash
# Fuzzes what strangers' bytes go through, each target for a while. Outside of CI: it takes a nightly
# compiler and minutes to build.
#   fuzz.sh [--minutes N] [target]…   N minutes (default 10) for each; targets: fuzz/targets/
# What it finds lies in fuzz/artifacts/ and makes it fail; what it learned in fuzz/corpus/, for the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'fuzz: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
minutes=10
targets=()
while [ $# -gt 0 ]; do
    case "$1" in
        --minutes)
            minutes=${2:-}
            shift
            ;;
        --minutes=*) minutes=${1#*=} ;;
        -*) fail "$1 is no option: fuzz.sh [--minutes N] [target]…" ;;
        *)
            [ -f "fuzz/targets/$1.rs" ] || fail "$1 is no target; there are: $(basename -s .rs -a fuzz/targets/*.rs | xargs)"
            targets+=("$1")
            ;;
    esac
    shift
done
[[ "$minutes" =~ ^[1-9][0-9]*$ ]] || fail "--minutes must be a whole number, at least 1"
if [ "${#targets[@]}" -eq 0 ]; then
    mapfile -t targets < <(basename -s .rs -a fuzz/targets/*.rs)
fi

command -v cargo >/dev/null || fail "cargo is not installed: get Rust from https://rustup.rs"
command -v c++ >/dev/null || fail "a C++ compiler is needed (libFuzzer is C++): apt-get install g++"
if ! cargo +nightly --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || fail "a nightly compiler is needed, and there is no rustup to install it: https://rustup.rs"
    say "installing a nightly compiler"
    rustup toolchain install nightly --profile minimal || fail "the nightly compiler could not be installed"
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    say "installing cargo-fuzz"
    cargo install --locked cargo-fuzz || fail "cargo-fuzz could not be installed"
fi

say "building"
cargo +nightly fuzz build
found=0
for target in "${targets[@]}"; do
    say "$target, $minutes min"
    mkdir -p "fuzz/corpus/$target"
    # The log of libFuzzer is long; its last lines say how many runs there were, and what was covered.
    log="fuzz/corpus/$target.log"
    if cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time=$((minutes * 60)) -rss_limit_mb=1500 -timeout=10 -dict=fuzz/json.dict -print_final_stats=1 >"$log" 2>&1; then
        grep ' cov: ' "$log" | tail -n 1
        grep '^stat::number_of_executed_units' "$log"
    else
        found=1
        say "$target has found something (whole log: $log):"
        grep -E 'panicked|ERROR|Test unit written' -A 3 "$log" | tail -n 20 >&2
    fi
done
exit "$found"
