#!/usr/bin/env bash
# Checks what is deployed as far as this machine can, and says what it could not check.
#   check.sh            everything
# Needs Python 3 with venv; the validators come from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
failed=0 unchecked=0
good() { printf 'check: %s\n' "$*"; }
bad() { printf 'check: WRONG: %s\n' "$*"; failed=$((failed + 1)); }
lacks() { printf 'check: not checked: %s\n' "$*"; unchecked=$((unchecked + 1)); }

deploy/local/checkers.sh
python="$target/checkers/bin/python"
mkdir -p "$target/check"

# Whatever the documents name exists.
if python3 docs/check.py --self-test >"$target/check/docs.log" 2>&1 && python3 docs/check.py >>"$target/check/docs.log" 2>&1; then
    good "links, settings, metrics, routes and commands in the documents"
else
    bad "docs/check.py: $target/check/docs.log"
    tail -20 "$target/check/docs.log"
fi

# Alerts and the tests of each.
if command -v promtool >/dev/null; then
    promtool check rules deploy/prometheus/alerts.yaml >/dev/null \
        && (cd deploy/prometheus && promtool test rules alerts.test.yaml alerts.days.test.yaml) >"$target/check/rules.log" 2>&1 \
        && good "alert rules and their tests" || { bad "alert rules: $target/check/rules.log"; tail -20 "$target/check/rules.log"; }
else
    lacks "alert rules: promtool (Debian: prometheus) is not installed"
fi

# The client packages' types, against the generators and compilers of their languages.
if [ -e "$target/consumers/generators/.installed" ] || docs/consumers/generate.sh --install >"$target/check/consumers.log" 2>&1; then
    docs/consumers/generate.sh --check >"$target/check/consumers.log" 2>&1 \
        && good "types of docs/consumers" || { bad "docs/consumers: $target/check/consumers.log"; tail -20 "$target/check/consumers.log"; }
else
    lacks "types of docs/consumers: their generators could not be installed ($target/check/consumers.log)"
fi

if command -v amtool >/dev/null; then
    amtool check-config deploy/alertmanager/alertmanager.yaml >"$target/check/alertmanager.log" 2>&1 \
        && good "deploy/alertmanager" || { bad "deploy/alertmanager"; tail -20 "$target/check/alertmanager.log"; }
else
    lacks "deploy/alertmanager: amtool (Debian: prometheus-alertmanager) is not installed"
fi

# compose.yaml
everything=(--profile simulator --profile monitoring)
if docker compose version >/dev/null 2>&1; then
    docker compose "${everything[@]}" config --quiet && good "compose.yaml" || bad "compose.yaml"
elif command -v docker-compose >/dev/null; then
    # The older one does not know the name.
    sed '/^name:/d' compose.yaml >"$target/check/compose.yaml"
    docker-compose -f "$target/check/compose.yaml" --project-directory . "${everything[@]}" config --quiet \
        && good "compose.yaml" || bad "compose.yaml"
else
    lacks "compose.yaml against its schema: neither the compose plugin nor docker-compose is installed"
fi

# Manifests
for overlay in deploy/kubernetes/overlays/*/; do
    name=$(basename "$overlay")
    if command -v kubectl >/dev/null; then
        kubectl kustomize "$overlay" >"$target/check/$name.yaml" || { bad "$overlay"; continue; }
        "$python" deploy/kubernetes/check.py "$target/check/$name.yaml" && good "$overlay" || bad "$overlay"
    else
        lacks "$overlay: kubectl is not installed"
    fi
done
if [ -s "$target/check/production.yaml" ] && [ -s "$target/check/trial.yaml" ]; then
    "$python" deploy/kubernetes/check_faults.py "$target/check/production.yaml" "$target/check/trial.yaml" \
        && good "faults put back into the manifests are found" || bad "deploy/kubernetes/check_faults.py"
fi
# The chart is the same as the production overlay.
helm=$(command -v helm || echo "$target/checkers/helm")
if [ -x "$helm" ] && [ -s "$target/check/production.yaml" ]; then
    "$helm" lint --quiet --strict deploy/helm/whatsapp >"$target/check/helm.log" 2>&1 \
        && "$helm" template whatsapp deploy/helm/whatsapp --namespace whatsapp >"$target/check/chart.yaml" 2>>"$target/check/helm.log" \
        && "$python" deploy/helm/compare.py "$target/check/chart.yaml" "$target/check/production.yaml" \
        && "$python" deploy/kubernetes/check.py "$target/check/chart.yaml" \
        && good "deploy/helm/whatsapp" || { bad "deploy/helm/whatsapp: $target/check/helm.log"; tail -20 "$target/check/helm.log"; }
    for values in podMonitors=true,networkPolicy.ports[0]=3128 keda.enabled=false,ingress.autoscaling.enabled=false; do
        "$helm" template whatsapp deploy/helm/whatsapp --set "$values" >/dev/null || bad "deploy/helm/whatsapp with $values"
    done
else
    lacks "deploy/helm/whatsapp: neither helm nor kubectl's kustomize is there"
fi
lacks "KEDA's ScaledObject against its schema (only that it has one trigger per partition)"

# The image's contents, with the debug build: whether the program runs on them alone, as its user.
if [ -x "$target/debug/ingress" ] && unshare --map-root-user true 2>/dev/null; then
    for program in ingress worker simulator; do
        root=$(mktemp -d)
        sh deploy/docker/image-root.sh "$target/debug/$program" "$root"
        unshare --map-root-user chroot "$root" "/$program" --help >/dev/null \
            && good "image of $program" || bad "image of $program"
        rm -r "$root"
    done
else
    lacks "what the images hold: no debug build, or no user namespaces"
fi
if [ -x "$target/debug/ingress" ]; then
    deploy/release.sh --dry-run >"$target/check/release.log" 2>&1 && good "what a release would publish" \
        || { bad "deploy/release.sh --dry-run: $target/check/release.log"; tail -5 "$target/check/release.log"; }
else
    lacks "deploy/release.sh: no debug build"
fi
docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1 || lacks "building and running the images (deploy/local/images.sh): no Docker engine"

[ -e docs/openapi.yaml ] && {
    "$python" -m openapi_spec_validator docs/openapi.yaml >/dev/null && good "docs/openapi.yaml" || bad "docs/openapi.yaml"
}

printf 'check: %s wrong, %s not checked\n' "$failed" "$unchecked"
[ "$failed" = 0 ]
