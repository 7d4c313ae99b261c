"""Holds what the chart renders against what kustomize builds: compare.py CHART KUSTOMIZE, each a file of YAML.

They must be the same but for what each tool adds: labels of its own, and how new settings make new pods.
"""

import re
import sys

import yaml


def documents(path):
    with open(path) as file:
        found = {}
        for document in yaml.safe_load_all(file):
            if document:
                name = re.sub(r"^whatsapp-[0-9a-z]{10}$", "whatsapp", document["metadata"]["name"])
                found[document["kind"], name] = normalized(document)
    return found


def in_order(port):
    return str(sorted(port.items()))


def normalized(document):
    document["metadata"] = {"name": document["metadata"]["name"]}
    if document["kind"] == "ConfigMap":
        document["metadata"] = {}
    if document["kind"] == "NetworkPolicy":
        for rule in document["spec"]["egress"]:
            rule["ports"].sort(key=in_order)
    if document["kind"] == "Deployment":
        template = document["spec"]["template"]
        template["metadata"]["annotations"].pop("checksum/settings", None)
        for container in template["spec"]["containers"]:
            container["ports"].sort(key=in_order)
            for source in container["envFrom"]:
                source["configMapRef"]["name"] = "whatsapp"
    return document


def differences(path, ours, theirs):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from differences(f"{path}.{key}", ours.get(key), theirs.get(key))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(f"{path}[{number}]", one, other)
    elif ours != theirs:
        yield f"{path}: the chart has {ours!r}, kustomize {theirs!r}"


chart, kustomize = (documents(path) for path in sys.argv[1:])
found = [
    difference
    for key in sorted(chart.keys() | kustomize.keys())
    for difference in differences(" ".join(key), chart.get(key), kustomize.get(key))
]
for difference in found:
    print(difference)
sys.exit(bool(found))
