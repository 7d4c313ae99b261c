"""Checks built manifests: each against Kubernetes' own schema, what they refer to, and what must agree."""

import re
import sys

import kubernetes_validate
import yaml

VERSION = "1.33"
# Of the production overlay, from whoever deploys it.
FROM_ELSEWHERE = {("Secret", "whatsapp-ingress"), ("Secret", "whatsapp-worker")}
# KEDA's, which no package ships.
WITHOUT_SCHEMA = {"ScaledObject"}

documents = [document for document in yaml.safe_load_all(open(sys.argv[1])) if document]
there = {(document["kind"], document["metadata"]["name"]) for document in documents} | FROM_ELSEWHERE
problems = []


def wrong(document, problem):
    problems.append(f"{document['kind']} {document['metadata']['name']}: {problem}")


def references(pod):
    for volume in pod.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield kind, source[key]["name"]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


settings = {}
for document in documents:
    if document["kind"] == "ConfigMap":
        settings.update(document["data"])
partitions = int(settings["STREAM_PARTITIONS"])
grace = seconds(settings["SHUTDOWN_GRACE"])
if settings["DEDUP_TTL"] != "8d":
    problems.append("DEDUP_TTL is not 8d")

for document in documents:
    kind = document["kind"]
    if kind not in WITHOUT_SCHEMA:
        try:
            kubernetes_validate.validate(document, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            wrong(document, error.message)
    if kind in ("Deployment", "StatefulSet"):
        pod = document["spec"]["template"]["spec"]
        labels = document["spec"]["template"]["metadata"]["labels"]
        for reference in references(pod):
            if reference not in there:
                wrong(document, f"refers to {reference}, which is not there")
        for key, value in document["spec"]["selector"]["matchLabels"].items():
            if labels.get(key) != value:
                wrong(document, f"selects {key}={value}, which its pods don't have")
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        if not mounts <= volumes:
            wrong(document, f"mounts {mounts - volumes}, which are no volumes")
        for container in pod["containers"]:
            ports = {port.get("name") for port in container.get("ports", [])}
            probes = [container[name] for name in container if name.endswith("Probe")]
            for probe in probes:
                port = probe.get("httpGet", {}).get("port", 0)
                if isinstance(port, str) and port not in ports:
                    wrong(document, f"a probe asks port {port}, which is none")
            if document["metadata"]["name"] in ("ingress", "worker"):
                sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                if pod["terminationGracePeriodSeconds"] < grace + sleep:
                    wrong(document, "is killed before SHUTDOWN_GRACE is over")
                if "memory" not in container["resources"]["limits"]:
                    wrong(document, "has no limit of memory")
    if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = document["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        selector = selector.get("matchLabels", selector)
        pods = [
            other["spec"]["template"]["metadata"]["labels"]
            for other in documents
            if other["kind"] in ("Deployment", "StatefulSet")
        ]
        if not any(selector.items() <= labels.items() for labels in pods):
            wrong(document, f"selects {selector}, which no pod has")
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        scaled = document["spec"]["scaleTargetRef"]["name"]
        if ("Deployment", scaled) not in there:
            wrong(document, f"scales {scaled}, which is not there")
    if kind == "ScaledObject":
        streams = [trigger["metadata"]["stream"] for trigger in document["spec"]["triggers"]]
        if streams != [f"whatsapp:{{{partition}}}:stream" for partition in range(partitions)]:
            wrong(document, f"has not one trigger for each of {partitions} partitions")
        if document["spec"]["maxReplicaCount"] != partitions:
            wrong(document, "may start more or fewer workers than there are partitions")

for problem in problems:
    print(problem)
sys.exit(bool(problems))
