#!/usr/bin/env bash
# Installs what checks the documents and manifests, from PyPI, beside the build's other results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

checkers="${CARGO_TARGET_DIR:-target}/checkers"
wanted=(kubernetes-validate==1.37.0 openapi-spec-validator==0.9.0 PyYAML==6.0.3 schemathesis==4.32.5)
if [ "$(cat "$checkers/installed" 2>/dev/null)" != "${wanted[*]}" ]; then
    rm -rf "$checkers"
    python3 -m venv "$checkers"
    "$checkers/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}" >&2
    printf '%s' "${wanted[*]}" >"$checkers/installed"
fi
