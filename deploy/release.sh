#!/usr/bin/env bash
# Makes what a tag publishes, in target/release-VERSION, and uploads nothing.
#   release.sh             binaries for x86-64 (and arm64 where its linker is), symbols, SBOM, checksums, notes; images
#                          where a Docker engine is
#   release.sh --dry-run   the same of the debug build that is there already, without images: for CI
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'release: %s\n' "$*" >&2; }
lacks() { say "left out: $*"; }
fail() {
    say "$*"
    exit 1
}

dry=false
[ "${1:-}" != --dry-run ] || dry=true
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
commit=$(git rev-parse --short=12 HEAD)
[ -n "$version" ] || fail "Cargo.toml names no version"
[ -z "$(git status --porcelain)" ] || [ "$dry" = true ] || fail "there are changes that are not committed"
out="$target/release-$version"
rm -rf "$out"
mkdir -p "$out/symbols"

# A program, and apart from it what a debugger wants of it.
put() {
    local built=$1 name=$2
    objcopy --only-keep-debug "$built" "$out/symbols/$name.debug"
    objcopy --strip-all "$built" "$out/$name"
    (cd "$out/symbols" && objcopy --add-gnu-debuglink="$name.debug" "../$name")
}

programs=(ingress worker simulator)
if [ "$dry" = true ]; then
    for program in "${programs[@]}"; do
        [ -x "$target/debug/$program" ] || fail "$target/debug/$program is not built"
        put "$target/debug/$program" "$program-$version-$(uname -m)-debug"
    done
else
    for architecture in x86_64 aarch64; do
        triple="$architecture-unknown-linux-gnu"
        if [ "$architecture" != "$(uname -m)" ] && ! command -v "$architecture-linux-gnu-gcc" >/dev/null; then
            lacks "$triple: no $architecture-linux-gnu-gcc (Debian: gcc-${architecture//_/-}-linux-gnu)"
            continue
        fi
        rustup target add "$triple" >&2 || {
            lacks "$triple: its standard library can't be had"
            continue
        }
        linker="CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_LINKER"
        [ "$architecture" = "$(uname -m)" ] || export "$linker=$architecture-linux-gnu-gcc"
        BUILD_COMMIT="$commit" cargo build --release --locked --workspace --bins --target "$triple"
        for program in "${programs[@]}"; do
            put "$target/$triple/release/$program" "$program-$version-$architecture"
        done
    done
fi

# What is inside: packages with their versions, licences and checksums, as SPDX and CycloneDX readers know them.
if cargo cyclonedx --version >/dev/null 2>&1; then
    for program in ingress worker; do
        cargo cyclonedx --quiet --format json --manifest-path "$program/Cargo.toml" --override-filename "$program-$version.cdx"
        mv "$program/$program-$version.cdx.json" "$out/"
    done
    git clean -qf -- '*.cdx.json'
else
    lacks "CycloneDX: cargo-cyclonedx is not installed; sbom.json is made of cargo metadata instead"
    cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" \
        | python3 deploy/release/sbom.py "$version" "$commit" >"$out/sbom.json"
fi

# Manual pages.
worker="$target/debug/worker"
[ "$dry" = true ] || worker="$target/$(uname -m)-unknown-linux-gnu/release/worker"
"$worker" man "$out/man" >/dev/null

# The notes: this version's section, or what is not released yet.
section() {
    awk -v wanted="## [$1]" '/^## / { inside = (index($0, wanted) == 1) } inside' CHANGELOG.md
}
section "$version" >"$out/NOTES.md"
[ -s "$out/NOTES.md" ] || section Unreleased >"$out/NOTES.md"
[ -s "$out/NOTES.md" ] || fail "CHANGELOG.md has no section of $version"
cat >"$out/PROVENANCE.md" <<NOTES
whatsapp $version, commit $commit, of $(git log -1 --format=%cI)

Built with $(rustc --version) and the versions of Cargo.lock (SHA-256 $(sha256sum Cargo.lock | cut -d' ' -f1)), by
deploy/release.sh on $(. /etc/os-release && printf '%s' "$PRETTY_NAME"). Symbols are of the same build. Nothing is signed here:
whoever publishes signs SHA256SUMS and the images.
NOTES
cp LICENSE deploy/s3/*.json .env.example "$out/"

if [ "$dry" = false ] && docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
    for program in "${programs[@]}"; do
        docker build -f deploy/docker/Dockerfile --target "$program" --build-arg COMMIT="$commit" --build-arg VERSION="$version" \
            -t "whatsapp-$program:$version" .
        docker save "whatsapp-$program:$version" | gzip >"$out/whatsapp-$program-$version-image.tar.gz"
    done
else
    lacks "images: a dry run, or no Docker engine"
fi
helm=$(command -v helm || echo "$target/checkers/helm")
if [ -x "$helm" ]; then
    "$helm" package --version "$version" --app-version "$version" --destination "$out" deploy/helm/whatsapp >&2
else
    lacks "the chart's package: helm is not installed"
fi

# Whatever is published is named and has a sum.
(cd "$out" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS && sha256sum --quiet --check SHA256SUMS)
for program in "$out"/ingress-* "$out"/worker-*; do
    case "$program" in *"$(uname -m)"*) ;; *) continue ;; esac
    told=$("$program" --version)
    case "$told" in *"$version"*) ;; *) fail "$program says $told" ;; esac
    [ "$dry" = true ] || case "$told" in *"$commit"*) ;; *) fail "$program doesn't name $commit: $told" ;; esac
done
say "$out:"
(cd "$out" && du -h --apparent-size -- * | sort -k2) >&2
