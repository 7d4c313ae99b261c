"""Puts faults that the manifests once had back into them, one by one: check.py must name each.

check_faults.py PRODUCTION TRIAL: both as `kubectl kustomize` builds them.
"""

import copy
import sys

import check

production, trial = (check.load(path) for path in sys.argv[1:])


def one(documents, kind, name):
    return next(document for document in documents if (document["kind"], document["metadata"]["name"]) == (kind, name))


def redis(documents):
    return check.pod_of(one(documents, "StatefulSet", "redis"))


def as_root(documents):
    redis(documents)["securityContext"] = {}


def short_name(documents):
    for trigger in one(documents, "ScaledObject", "worker")["spec"]["triggers"]:
        trigger["metadata"]["address"] = "redis:6379"


def without_port(program, port):
    def fault(documents):
        for rule in one(documents, "NetworkPolicy", program)["spec"]["egress"]:
            rule["ports"] = [open for open in rule["ports"] if open["port"] != port]

    return fault


def replicas(program):
    def fault(documents):
        one(documents, "Deployment", program)["spec"]["replicas"] = 2

    return fault


def unlabelled(documents):
    del one(documents, "Namespace", "whatsapp-trial")["metadata"]["labels"]


def without_context(documents):
    for server in ("redis", "rabbitmq", "minio"):
        for container in check.pod_of(one(documents, "StatefulSet", server))["containers"]:
            container.pop("securityContext", None)


def open_port_is_ready(documents):
    redis(documents)["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 6379}}


def open_to_all(documents):
    documents.remove(one(documents, "NetworkPolicy", "redis"))


def little_memory(documents):
    redis(documents)["containers"][0]["resources"]["limits"]["memory"] = "5Gi"


def quick_kill(documents):
    check.pod_of(one(documents, "Deployment", "ingress"))["terminationGracePeriodSeconds"] = 5


def at_once(documents):
    for map in check.of_kind(documents, "ConfigMap"):
        map["data"]["SHUTDOWN_DELAY"] = "0s"


FAULTS = [
    (trial, as_root, "at lost+found"),
    (production, short_name, "KEDA's namespace"),
    (production, without_port("worker", 80), "port 80 of TENANT_SERVICE_URL"),
    (production, without_port("worker", 6380), "port 6380, where"),
    (production, without_port("ingress", 6380), "port 6380, where"),
    (trial, without_port("worker", 8090), "port 8090 of GRAPH_BASE_URL"),
    (trial, without_port("worker", 5672), "port 5672 of AMQP_URL"),
    (production, replicas("ingress"), "beside its HorizontalPodAutoscaler"),
    (production, replicas("worker"), "beside its ScaledObject"),
    (trial, unlabelled, "does not enforce"),
    (trial, without_context, "restricted forbids"),
    (trial, open_port_is_ready, "must ask PING"),
    (trial, open_to_all, "protected mode off"),
    (trial, little_memory, "less memory than"),
    (production, at_once, "SHUTDOWN_DELAY is 0s"),
    (production, quick_kill, "before SHUTDOWN_DELAY"),
]

unnoticed = 0
for documents, fault, words in FAULTS:
    faulty = copy.deepcopy(documents)
    fault(faulty)
    if any(words in problem for problem in check.problems(documents)):
        print(f"there already: {words}")
        unnoticed += 1
    elif not any(words in problem for problem in check.problems(faulty)):
        print(f"not noticed: {words}")
        unnoticed += 1
sys.exit(bool(unnoticed))
