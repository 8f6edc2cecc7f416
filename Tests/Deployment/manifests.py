"""Kubernetes objects as kustomize renders them, by the kubectl of Debian, and what they must have in common."""

import copy
import functools
import ipaddress
import json
import pathlib
import shutil
import subprocess
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "compose/kubernetes"
VERSION = "1.37"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Objects that make-secrets.sh makes: (kind, name) and their keys.
MADE = {
    ("Secret", "gateway-keys"): {"gateway.secret"}, ("Secret", "worker-keys"): {"worker.secret", "gateway.public"},
    ("Secret", "api-keys"): {"api-keys"}, ("Secret", "postgresql"): {"password"}, ("ConfigMap", "worker-public-keys"): {"worker.public"},
}


def render(overlay):
    """The objects of compose/kubernetes/OVERLAY, of which the caller may change what it gets."""
    return [item for item in yaml.load_all(rendered(overlay), Loader=LOADER) if item]


@functools.cache
def rendered(overlay):
    """What kustomize writes. Debian's kubectl has version 2.0 of it, so today's words are written as those of then."""
    with tempfile.TemporaryDirectory() as name:
        copied = pathlib.Path(name, "kubernetes")
        shutil.copytree(FOLDER, copied)
        for path in copied.rglob("kustomization.yaml"):
            path.write_text(yaml.safe_dump(in_old_words(yaml.safe_load(path.read_text()), path.parent)))
        result = subprocess.run(["kubectl", "kustomize", copied / overlay], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def in_old_words(text, folder):
    known = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "patches", "images"}
    assert set(text) <= known, f"{folder}: {set(text) - known} cannot be written for kustomize 2.0"
    bases = [name for name in text["resources"] if (folder / name).is_dir()]
    patches = text.pop("patches", [])
    assert all(set(patch) == {"path"} for patch in patches), f"{folder}: only whole files as patches"
    # Its images need a tag.
    images = [{"newTag": "latest", **image} for image in text.get("images", [])]
    return {**text, "bases": bases, "resources": [name for name in text["resources"] if name not in bases],
            "patchesStrategicMerge": [patch["path"] for patch in patches], "images": images}


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def title(item):
    return f"{item['kind']} {item['metadata']['name']}"


def workloads(objects):
    return of_kind(objects, "Deployment", "StatefulSet", "Job")


def pod(workload):
    return workload["spec"]["template"]["spec"]


def labels(workload):
    return workload["spec"]["template"]["metadata"]["labels"]


def containers(workload):
    return pod(workload).get("initContainers", []) + pod(workload)["containers"]


def matches(selector, found):
    """Whether a selector of `matchLabels` only, or a plain one, matches labels."""
    selector = selector.get("matchLabels", {}) if not selector or "matchLabels" in selector else selector
    return all(found.get(key) == value for key, value in selector.items())


def ports(workload):
    """Named ports of a workload's containers."""
    return {port["name"]: port["containerPort"] for container in containers(workload) for port in container.get("ports", [])}


def schema_problems(objects):
    for item in objects:
        if item["apiVersion"].startswith("keda.sh/"):
            yield from scaled_object_problems(item, objects)
            continue
        if problem := schema_problem(json.dumps(item)):
            yield f"{title(item)}: {problem}"


@functools.cache
def schema_problem(text):
    """What is wrong with an object, by the schema of its kind; a second look at the same one takes no time."""
    try:
        kubernetes_validate.validate(json.loads(text), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"


def scaled_object_problems(item, _):
    """KEDA's own fields are in no schema of Kubernetes; what is within `behavior` is."""
    spec = item["spec"]
    known = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "fallback", "advanced", "triggers"}
    if set(spec) - known:
        yield f"{title(item)}: unknown {set(spec) - known}"
    if not 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]:
        yield f"{title(item)}: between {spec['minReplicaCount']} and {spec['maxReplicaCount']} replicas"
    for trigger in spec["triggers"]:
        metadata = trigger.get("metadata", {})
        if trigger["type"] != "prometheus" or not {"serverAddress", "query", "threshold"} <= set(metadata):
            yield f"{title(item)}: a trigger of Prometheus needs serverAddress, query and threshold: {trigger}"
        if not all(isinstance(value, str) for value in metadata.values()):
            yield f"{title(item)}: metadata are texts: {metadata}"
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}, "spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "x"}, "maxReplicas": 1, "behavior": behavior}}
    if problem := schema_problem(json.dumps(autoscaler)):
        yield f"{title(item)}: {problem}"


def service_problems(objects):
    for service in of_kind(objects, "Service"):
        behind = [item for item in workloads(objects) if matches(service["spec"]["selector"], labels(item))]
        if len(behind) != 1:
            yield f"{title(service)}: selects {[title(item) for item in behind]}"
        for item in behind:
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in ports(item):
                    yield f"{title(service)}: {title(item)} has no port {port['targetPort']}"
    for item in workloads(objects):
        selector = item["spec"].get("selector")
        if selector is not None and not matches(selector, labels(item)):
            yield f"{title(item)}: its selector does not match its pods"


def volume_problems(objects):
    there = {(item["kind"], item["metadata"]["name"]) for item in objects} | set(MADE)
    for item in workloads(objects):
        templates = [claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])]
        defined = {volume["name"] for volume in pod(item).get("volumes", [])} | set(templates)
        mounted = {mount["name"] for container in containers(item) for mount in container.get("volumeMounts", [])}
        if defined != mounted:
            yield f"{title(item)}: volumes {sorted(defined)}, but mounts {sorted(mounted)}"
        for reference in references(item):
            if reference not in there:
                yield f"{title(item)}: there is no {reference[0]} {reference[1]}"
        for container in containers(item):
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                if key and key["key"] not in MADE.get(("Secret", key["name"]), ()):
                    yield f"{title(item)}: no key {key['key']} in the secret {key['name']}"


def references(item):
    """(kind, name) of what a pod takes from other objects."""
    for volume in pod(item).get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in containers(item):
        for source in container.get("envFrom", []):
            yield "ConfigMap", source["configMapRef"]["name"]
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield "Secret", variable["valueFrom"]["secretKeyRef"]["name"]


def disruption_problems(objects):
    for budget in of_kind(objects, "PodDisruptionBudget"):
        behind = [item for item in workloads(objects) if matches(budget["spec"]["selector"], labels(item))]
        if len(behind) != 1:
            yield f"{title(budget)}: selects {[title(item) for item in behind]}"
        least, replicas = budget["spec"].get("minAvailable", 0), behind[0]["spec"].get("replicas", 1) if behind else 0
        if not isinstance(least, int) or least >= max(replicas, 1):
            yield f"{title(budget)}: {least} of {replicas} must stay, so no node can be drained"
        if budget["spec"].get("maxUnavailable") in (0, "0", "0%"):
            yield f"{title(budget)}: no pod may go, so no node can be drained"
    for item in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        name = item["spec"]["scaleTargetRef"]["name"]
        targets = [target for target in of_kind(objects, "Deployment") if target["metadata"]["name"] == name]
        if len(targets) != 1:
            yield f"{title(item)}: there is no Deployment {name}"
        elif "replicas" in targets[0]["spec"]:
            yield f"{title(item)}: Deployment {name} sets its replicas as well"


def security_problems(objects):
    for item in workloads(objects):
        context = pod(item).get("securityContext", {})
        if not context.get("runAsNonRoot") or context.get("seccompProfile") != {"type": "RuntimeDefault"} or not context.get("runAsUser"):
            yield f"{title(item)}: securityContext {context}"
        if pod(item).get("automountServiceAccountToken") is not False:
            yield f"{title(item)}: has a token for the cluster's API"
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if pod(item).get(name):
                yield f"{title(item)}: {name}"
        for container in containers(item):
            own = container.get("securityContext", {})
            wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            if own != wanted:
                yield f"{title(item)}: {container['name']}: securityContext {own}"
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
                yield f"{title(item)}: {container['name']}: resources {resources}"
            if container["image"].endswith(":latest") or ":" not in container["image"]:
                yield f"{title(item)}: {container['name']}: the image {container['image']} has no version"
        for volume in pod(item).get("volumes", []):
            if "hostPath" in volume or "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{title(item)}: volume {volume}"


def settings(objects, workload):
    """Environment of a workload's main container, as far as it is written down."""
    container = pod(workload)["containers"][0]
    maps = {item["metadata"]["name"]: item["data"] for item in of_kind(objects, "ConfigMap")}
    values = {}
    for source in container.get("envFrom", []):
        values.update(maps.get(source["configMapRef"]["name"], {}))
    values.update({variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable})
    return values


def path_problems(objects):
    """Every path in the settings is below a mount of the container, and a key is put there or is in a secret."""
    for item in of_kind(objects, "Deployment"):
        container = pod(item)["containers"][0]
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        made = [pathlib.Path(name).name for first in pod(item).get("initContainers", []) for name in first["command"] if name[0] == "/"]
        for key, value in settings(objects, item).items():
            if not key.startswith("QWEN_IMAGE_") or not value.startswith("/"):
                continue
            parent = next((mount for mount in mounts if pathlib.Path(value).is_relative_to(mount)), None)
            if parent is None:
                yield f"{title(item)}: {key}={value} is below no mount"
            elif mounts[parent] == "keys" and pathlib.Path(value).name not in made:
                yield f"{title(item)}: no init container puts {value} there"


def grace_problems(objects):
    for item in of_kind(objects, "Deployment"):
        values, grace = settings(objects, item), pod(item).get("terminationGracePeriodSeconds", 30)
        if "QWEN_IMAGE_WORKER_DRAIN_GRACE_SECONDS" in values:
            least = float(values["QWEN_IMAGE_WORKER_DRAIN_GRACE_SECONDS"]) + 30
        else:
            before = pod(item)["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
            least = float(values["QWEN_IMAGE_SHUTDOWN_GRACE_SECONDS"]) + 15 + (float(before[1]) if before[:1] == ["sleep"] else 0)
        if grace <= least:
            yield f"{title(item)}: is killed after {grace} s, but may take {least:g} s to end"


CHECKS = (schema_problems, service_problems, volume_problems, disruption_problems, security_problems, path_problems, grace_problems)


def problems(objects):
    return [problem for check in CHECKS for problem in check(objects)]


class Network:
    """Which pods may connect to which, by the network policies. A peer is a dictionary of pod labels, or an address outside."""

    def __init__(self, objects):
        self.policies = [copy.deepcopy(item["spec"]) for item in of_kind(objects, "NetworkPolicy")]
        self.named = {name: port for item in workloads(objects) for name, port in ports(item).items()}

    def allows(self, source, target, port, protocol="TCP", namespaces=("qwen-image", "qwen-image")):
        """Whether the network lets `source` connect to `target` at `port`."""
        sides = ((source, target, "Egress", "to", namespaces[1]), (target, source, "Ingress", "from", namespaces[0]))
        return all(self._side(*side, port, protocol) for side in sides)

    def _side(self, subject, peer, direction, word, namespace, port, protocol):
        if not isinstance(subject, dict) or subject.get("elsewhere"):
            return True
        selecting = [policy for policy in self.policies
                     if direction in policy["policyTypes"] and matches(policy.get("podSelector", {}), subject)]
        rules = [rule for policy in selecting for rule in policy.get(direction.lower(), [])]
        return not selecting or any(self._rule(rule, word, peer, namespace, port, protocol) for rule in rules)

    def _rule(self, rule, word, peer, namespace, port, protocol):
        listed = rule.get("ports")
        if listed and not any(self.named.get(p["port"], p["port"]) == port and p["protocol"] == protocol for p in listed):
            return False
        return word not in rule or any(self._peer(item, peer, namespace) for item in rule[word])

    def _peer(self, item, peer, namespace):
        if "ipBlock" in item:
            networks = [ipaddress.ip_network(item["ipBlock"]["cidr"]), *map(ipaddress.ip_network, item["ipBlock"].get("except", []))]
            inside = not isinstance(peer, dict) and [ipaddress.ip_address(peer) in network for network in networks]
            return bool(inside) and inside[0] and not any(inside[1:])
        if not isinstance(peer, dict):
            return False
        spaces = {"kubernetes.io/metadata.name": namespace}
        in_namespace = matches(item["namespaceSelector"], spaces) if "namespaceSelector" in item else namespace == "qwen-image"
        return in_namespace and matches(item.get("podSelector", {}), peer)
