"""Makes a CycloneDX document of `cargo metadata`, for where cargo-cyclonedx is not installed.

cargo metadata | sbom.py VERSION COMMIT: the packages that the two programs are built of, without those of tests.
"""

import json
import sys

metadata = json.load(sys.stdin)
version, commit = sys.argv[1:]
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
roots = [package["id"] for package in metadata["packages"] if package["name"] in ("ingress", "worker") and not package["source"]]

used, waiting = set(), list(roots)
while waiting:
    one = waiting.pop()
    if one in used:
        continue
    used.add(one)
    for dependency in nodes[one]["deps"]:
        if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"]):
            waiting.append(dependency["pkg"])


def component(package):
    described = {
        "type": "library",
        "bom-ref": package["id"],
        "name": package["name"],
        "version": package["version"],
        "purl": f"pkg:cargo/{package['name']}@{package['version']}",
    }
    if package["license"]:
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return described


document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "version": 1,
    "metadata": {
        "component": {"type": "application", "bom-ref": "whatsapp", "name": "whatsapp", "version": version},
        "properties": [{"name": "commit", "value": commit}],
    },
    "components": [component(packages[one]) for one in sorted(used)],
    "dependencies": [{"ref": "whatsapp", "dependsOn": roots}]
    + [
        {"ref": one, "dependsOn": sorted(dependency["pkg"] for dependency in nodes[one]["deps"] if dependency["pkg"] in used)}
        for one in sorted(used)
    ],
}
json.dump(document, sys.stdout, indent=1)
