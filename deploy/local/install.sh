#!/usr/bin/env bash
# Installs what the local run and the tests need and this machine lacks: Redis, RabbitMQ, Ceph's S3
# gateway, Prometheus and Alertmanager as Debian packages, none of them started as a service, a C compiler, and Python and
# Node with their AMQP clients for the example consumers. Run it, or let run.sh and test.sh do so.
set -euo pipefail

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

install_packages() {
    local list="${packages[*]}"
    if ! command -v apt-get >/dev/null 2>&1; then
        fail "this machine lacks: $list. They are Debian's package names; install their like and try again."
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null 2>&1; then
        fail "this machine lacks: $list. Installing them needs root or sudo: apt-get install --no-install-recommends $list"
    fi
    say "installing $list"
    trap remove_policy EXIT
    forbid_services
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 \
        || say "apt-get update failed; trying with the package lists as they are"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends \
        "${packages[@]}" >&2 || fail "apt-get could not install: $list"
    remove_policy
}

# The packages' programs partly live where only root looks.
PATH="$PATH:/usr/sbin:/sbin"

want redis-server redis-server
want rabbitmq-server /usr/lib/rabbitmq/lib
want ceph-mon ceph-mon
want ceph-osd ceph-osd
want radosgw radosgw
want ceph-common ceph
want prometheus prometheus
want prometheus-alertmanager prometheus-alertmanager
want nginx-light nginx
want openssl openssl
want chromium chromium
want curl curl
want util-linux setpriv
want python3-venv /usr/lib/python3*/ensurepip
want python3-pika /usr/lib/python3/dist-packages/pika
want nodejs node
want npm npm
if ! command -v cc >/dev/null 2>&1; then
    packages+=(build-essential pkg-config)
fi

if [ "${#packages[@]}" -gt 0 ]; then
    install_packages
fi

if ! command -v cargo >/dev/null 2>&1 && [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    fail "cargo is not installed: get Rust from https://rustup.rs"
fi

# The Node consumer's client, beside the build's other results.
consumer="$(dirname "${BASH_SOURCE[0]}")/../../docs/consumers/node"
modules="${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../target}/consumers/node"
if ! cmp -s "$consumer/package-lock.json" "$modules/package-lock.json" || [ ! -d "$modules/node_modules/amqplib" ]; then
    mkdir -p "$modules"
    cp "$consumer/package.json" "$modules/"
    cp "$consumer/package-lock.json" "$modules/"
    npm ci --prefix "$modules" --no-audit --no-fund --silent >&2 || {
        rm "$modules/package-lock.json"
        say "npm could not install amqplib: the test of the Node consumer will say so and fail"
    }
fi

# Schemathesis, which drives the routes that docs/openapi.yaml describes.
"$(dirname "${BASH_SOURCE[0]}")/checkers.sh" || say "PyPI's checkers could not be installed: the test of docs/openapi.yaml will say so and fail"
