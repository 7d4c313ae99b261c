#!/usr/bin/env bash
# Installs what this machine lacks, as Debian packages whose services are not started:
#   install.sh --for demo    Redis, RabbitMQ, a C compiler
#   install.sh --for bench   and Ceph's S3 gateway, valgrind and Node, for measurements and chaos
#   install.sh [--for test]  and all that a test needs: Prometheus, Alertmanager, nginx, Chromium, the consumers' clients,
#                            checkers from PyPI
# The scripts beside it call it.
set -euo pipefail

purpose=test
while [ $# -gt 0 ]; do
    case "$1 ${2:-}" in
        "--for demo" | "--for bench" | "--for test") purpose=$2 ;;
        *)
            echo "install.sh [--for demo|bench|test]" >&2
            exit 2
            ;;
    esac
    shift 2
done

say() { printf 'install: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# The package's name, and a program or folder that it brings.
packages=()
want() {
    local package=$1 probe
    shift
    for probe in "$@"; do
        if [ "${probe#/}" != "$probe" ]; then
            [ -e "$probe" ] && return
        elif command -v "$probe" >/dev/null 2>&1; then
            return
        fi
    done
    packages+=("$package")
}

policy=/usr/sbin/policy-rc.d
policy_is_ours=false

remove_policy() {
    if [ "$policy_is_ours" = true ]; then
        policy_is_ours=false
        as_root rm -f "$policy"
    fi
}

# While this file answers 101, packages don't start their services.
forbid_services() {
    [ -e "$policy" ] && return
    policy_is_ours=true
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

# Tells how far apt-get is, every three seconds, and repeats the end of what it said if it fails.
told() {
    local total=$1 log code=0 next=0 downloaded=0 installed=0 line
    shift
    log=$(mktemp)
    { "$@" 2>&1 || echo "failed $?"; } | while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        case "$line" in
            Get:*) downloaded=$((downloaded + 1)) ;;
            "Setting up "*) installed=$((installed + 1)) ;;
        esac
        if [ "$SECONDS" -ge "$next" ]; then
            say "downloaded $downloaded of $total, installed $installed"
            next=$((SECONDS + 3))
        fi
    done
    if [ "$(tail -n 1 "$log" | cut -d ' ' -f 1)" = failed ]; then
        code=1
        tail -n 20 "$log" >&2
    fi
    rm -f "$log"
    [ "$code" != 0 ] || say "installed all $total"
    return "$code"
}

install_packages() {
    local list="${packages[*]}" total
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "this machine lacks: $list. They are Debian's package names; install their like and try again."
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "this machine lacks: $list. Installing them needs root or sudo: apt-get install --no-install-recommends $list"
    fi
    say "this machine lacks $list"
    trap remove_policy EXIT
    forbid_services
    say "reading the package lists"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 \
        || say "apt-get update failed; trying with the package lists as they are"
    total=$(as_root apt-get -s install --no-install-recommends "${packages[@]}" 2>/dev/null | grep -c '^Inst' || true)
    say "installing $total packages"
    told "$total" as_root env DEBIAN_FRONTEND=noninteractive apt-get -y install --no-install-recommends \
        "${packages[@]}" || fail "apt-get could not install: $list"
    remove_policy
}

if ! command -v cargo >/dev/null 2>&1 && [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    fail "cargo is not installed: get Rust from https://rustup.rs"
fi

# The packages' programs partly live where only root looks.
PATH="$PATH:/usr/sbin:/sbin"

want redis-server redis-server
want rabbitmq-server /usr/lib/rabbitmq/lib
want util-linux setpriv
want curl curl
# Without it no HTTP client can be built.
want ca-certificates /etc/ssl/certs/ca-certificates.crt
if ! command -v cc >/dev/null 2>&1; then
    packages+=(gcc libc6-dev)
fi
if [ "$purpose" != demo ]; then
    want ceph-mon ceph-mon
    want ceph-osd ceph-osd
    want radosgw radosgw
    want ceph-common ceph
    want valgrind valgrind
    want nodejs node
    want npm npm
fi
if [ "$purpose" = test ]; then
    want prometheus prometheus
    want prometheus-alertmanager prometheus-alertmanager
    want nginx-light nginx
    want openssl openssl
    want chromium chromium
    want python3-venv /usr/lib/python3*/ensurepip
fi

if [ "${#packages[@]}" -gt 0 ]; then
    install_packages
fi

[ "$purpose" = test ] || exit 0

# The client packages for Python and Node, installed as their users install them, beside the build's other results.
consumers="$(dirname "${BASH_SOURCE[0]}")/../../docs/consumers"
installed="${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../target}/consumers/installed"
made_of="$(cat "$consumers"/node/* "$consumers"/python/pyproject.toml "$consumers"/python/whatsapp_events/*.py | sha256sum)"
if [ "$(cat "$installed/made_of" 2>/dev/null)" != "$made_of" ]; then
    rm -rf "$installed"
    mkdir -p "$installed"
    # pip builds inside the folder that it installs.
    cp -r "$consumers/python" "$installed/source"
    if npm install --prefix "$installed" --install-links --no-audit --no-fund --silent "$consumers/node" >&2 \
        && python3 -m venv "$installed/python" && "$installed/python/bin/pip" -q install "$installed/source" >&2; then
        printf '%s\n' "$made_of" >"$installed/made_of"
    else
        say "the client packages could not be installed: the tests of the consumers will say so and fail"
    fi
fi

# Schemathesis, which drives the routes that docs/openapi.yaml describes.
"$(dirname "${BASH_SOURCE[0]}")/checkers.sh" || say "PyPI's checkers could not be installed: the test of docs/openapi.yaml will say so and fail"
