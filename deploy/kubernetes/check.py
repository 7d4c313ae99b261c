"""Checks built manifests: each against Kubernetes' own schema, what they refer to, and what must agree."""

import base64
import re
import sys
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

VERSION = "1.33"
# Of the production overlay, from whoever deploys it.
FROM_ELSEWHERE = {("Secret", "whatsapp-ingress"), ("Secret", "whatsapp-worker")}
# KEDA's, which no package ships.
WITHOUT_SCHEMA = {"ScaledObject"}
PROGRAMS = ("ingress", "worker")
PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}
# Settings with addresses that no program connects to: consumers do.
FOR_OTHERS = {"MINIO_PUBLIC_ENDPOINT"}
# Settings with addresses that ingress takes; the worker takes all.
OF_INGRESS = {"REDIS_URL", "MINIO_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "HTTPS_PROXY"}
# Where servers listen whose addresses lie in a Secret from elsewhere: Redis, and with TLS as clouds sell it.
UNSEEN = {"ingress": {6379, 6380}, "worker": {6379, 6380, 5672, 5671}}
# Redis' units and Kubernetes'.
SIZES = {"mb": 2**20, "gb": 2**30, "Mi": 2**20, "Gi": 2**30}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def size(text):
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]+)", text).groups()
    return int(number) * SIZES[unit]


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def pod_of(document):
    return document["spec"]["template"]["spec"]


def settings(documents):
    return {name: value for map in of_kind(documents, "ConfigMap") for name, value in map["data"].items()}


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


def check_schema(documents):
    for document in documents:
        if document["kind"] not in WITHOUT_SCHEMA:
            try:
                kubernetes_validate.validate(document, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield document, error.message


def check_references(documents):
    there = {(document["kind"], document["metadata"]["name"]) for document in documents} | FROM_ELSEWHERE
    for document in of_kind(documents, "Deployment", "StatefulSet"):
        pod = pod_of(document)
        labels = document["spec"]["template"]["metadata"]["labels"]
        for reference in references(pod):
            if reference not in there:
                yield document, f"refers to {reference}, which is not there"
        for key, value in document["spec"]["selector"]["matchLabels"].items():
            if labels.get(key) != value:
                yield document, f"selects {key}={value}, which its pods don't have"
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        if not mounts <= volumes:
            yield document, f"mounts {mounts - volumes}, which are no volumes"
        for container in pod["containers"]:
            ports = {port.get("name") for port in container.get("ports", [])}
            for probe in (container[name] for name in container if name.endswith("Probe")):
                port = probe.get("httpGet", {}).get("port", 0)
                if isinstance(port, str) and port not in ports:
                    yield document, f"a probe asks port {port}, which is none"


def check_selectors(documents):
    pods = [
        document["spec"]["template"]["metadata"]["labels"]
        for document in of_kind(documents, "Deployment", "StatefulSet")
    ]
    for document in of_kind(documents, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        selector = document["spec"].get("podSelector", document["spec"].get("selector"))
        selector = selector.get("matchLabels", selector)
        if not any(selector.items() <= labels.items() for labels in pods):
            yield document, f"selects {selector}, which no pod has"


def check_programs(documents):
    given = settings(documents)
    grace = seconds(given["SHUTDOWN_GRACE"])
    delay = seconds(given["SHUTDOWN_DELAY"])
    for document in of_kind(documents, "Deployment"):
        if document["metadata"]["name"] not in PROGRAMS:
            continue
        pod = pod_of(document)
        for container in pod["containers"]:
            if pod["terminationGracePeriodSeconds"] < grace + delay:
                yield document, "is killed before SHUTDOWN_DELAY and SHUTDOWN_GRACE are over"
            if "memory" not in container["resources"]["limits"]:
                yield document, "has no limit of memory"
    if delay == 0:
        yield documents[0], "SHUTDOWN_DELAY is 0s: ingress would refuse what is still sent to it"
    for map in of_kind(documents, "ConfigMap"):
        if map["data"].get("DEDUP_TTL", "8d") != "8d":
            yield map, "DEDUP_TTL is not 8d"


def check_autoscalers(documents):
    partitions = int(settings(documents)["STREAM_PARTITIONS"])
    deployments = {document["metadata"]["name"]: document for document in of_kind(documents, "Deployment")}
    for document in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        scaled = deployments.get(document["spec"]["scaleTargetRef"]["name"])
        if scaled is None:
            yield document, "scales what is not there"
        elif "replicas" in scaled["spec"]:
            yield scaled, f"has replicas, which each apply would set again beside its {document['kind']}"
    for document in of_kind(documents, "ScaledObject"):
        triggers = [trigger["metadata"] for trigger in document["spec"]["triggers"]]
        streams = [trigger["stream"] for trigger in triggers]
        if streams != [f"whatsapp:{{{partition}}}:stream" for partition in range(partitions)]:
            yield document, f"has not one trigger for each of {partitions} partitions"
        if document["spec"]["maxReplicaCount"] != partitions:
            yield document, "may start more or fewer workers than there are partitions"
        for host in sorted({trigger["address"].rpartition(":")[0] for trigger in triggers}):
            if "." not in host:
                yield document, f"asks {host}, a name that KEDA's namespace doesn't know"


def secret_values(documents, program):
    for secret in of_kind(documents, "Secret"):
        if secret["metadata"]["name"].startswith(f"whatsapp-{program}"):
            yield from ((name, base64.b64decode(value).decode()) for name, value in secret["data"].items())


def addresses(documents, program):
    """Each address that a program is given: its setting, host and port."""
    given = [*settings(documents).items(), *secret_values(documents, program)]
    for name, value in given:
        if name in FOR_OTHERS or (program == "ingress" and name not in OF_INGRESS):
            continue
        for one in value.split(","):
            url = urlsplit(one.strip())
            if url.scheme in PORTS and url.hostname:
                yield name, url.hostname, url.port or PORTS[url.scheme]


def port_of_pods(documents, host, port):
    """What a policy sees of a connection to a service: the port of its pods."""
    for service in of_kind(documents, "Service"):
        if service["metadata"]["name"] == host.split(".")[0]:
            return next((one.get("targetPort", port) for one in service["spec"]["ports"] if one["port"] == port), port)
    return port


def check_egress(documents):
    seen = {document["metadata"]["name"] for document in of_kind(documents, "Secret")}
    for policy in of_kind(documents, "NetworkPolicy"):
        program = policy["metadata"]["name"]
        if program not in PROGRAMS:
            continue
        open_ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])}
        for name, host, port in addresses(documents, program):
            port = port_of_pods(documents, host, port)
            if port not in open_ports:
                yield policy, f"lets nothing out to port {port} of {name}"
        if not any(name.startswith(f"whatsapp-{program}") for name in seen):
            for port in sorted(UNSEEN[program] - open_ports):
                yield policy, f"lets nothing out to port {port}, where its servers may be"


def check_pod_security(documents):
    """The profile `restricted` of Kubernetes' Pod Security Standards, for every pod."""
    for document in of_kind(documents, "Namespace"):
        if document["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield document, "does not enforce the Pod Security profile restricted"
    for document in of_kind(documents, "Deployment", "StatefulSet"):
        pod = pod_of(document)
        common = pod.get("securityContext", {})
        if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
            yield document, "shares a namespace with its host, which restricted forbids"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield document, "mounts a folder of its host, which restricted forbids"
        for container in pod.get("initContainers", []) + pod["containers"]:
            own = common | container.get("securityContext", {})
            right = {
                "runAsNonRoot": own.get("runAsNonRoot") is True,
                "runAsUser": own.get("runAsUser") != 0,
                "seccompProfile": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
                "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                "capabilities": "ALL" in own.get("capabilities", {}).get("drop", []),
            }
            for name in sorted(name for name in right if not right[name]):
                yield document, f"restricted forbids what container {container['name']} says, or doesn't, of {name}"


def check_servers(documents):
    """What keeps data on a volume: a fresh ext4 has a folder lost+found, which is root's alone."""
    for document in of_kind(documents, "StatefulSet"):
        pod = pod_of(document)
        common = pod.get("securityContext", {})
        for name in ("runAsUser", "runAsGroup", "fsGroup"):
            if name not in common:
                yield document, f"has a volume and no {name}: as root its start fails at lost+found"
    for document in of_kind(documents, "StatefulSet"):
        if document["metadata"]["name"] != "redis":
            continue
        [redis] = pod_of(document)["containers"]
        if "ping" not in " ".join(redis.get("readinessProbe", {}).get("exec", {}).get("command", [])).lower():
            yield document, "is ready while it loads its data: its readiness must ask PING"
        args = redis["args"]
        open_to_all = "--protected-mode" in args and args[args.index("--protected-mode") + 1] == "no"
        if open_to_all and "redis" not in {policy["metadata"]["name"] for policy in of_kind(documents, "NetworkPolicy")}:
            yield document, "has protected mode off and no NetworkPolicy that says who may connect"
        maxmemory = size(args[args.index("--maxmemory") + 1])
        if size(redis["resources"]["limits"]["memory"]) < maxmemory * 1.5:
            yield document, "has less memory than 1.5 times its maxmemory: a rewrite of its file copies what changes"


CHECKS = (
    check_schema,
    check_references,
    check_selectors,
    check_programs,
    check_autoscalers,
    check_egress,
    check_pod_security,
    check_servers,
)


def problems(documents):
    return [
        f"{document['kind']} {document['metadata']['name']}: {problem}"
        for check in CHECKS
        for document, problem in check(documents)
    ]


def load(path):
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


if __name__ == "__main__":
    found = problems(load(sys.argv[1]))
    for problem in found:
        print(problem)
    sys.exit(bool(found))
