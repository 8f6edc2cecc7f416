#!/usr/bin/env python3
"""What compose/kubernetes, compose/swarm and compose/systemd say, without a cluster: objects are valid and fit together, settings are
those of the executables, and a mistake in any of it is found.

    deploy_test.py [DIRECTORY OF THE EXECUTABLES]

Needs kubectl (Debian's kubernetes-client), systemd-analyze and haproxy.
"""

import copy
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import yaml

import manifests
from manifests import FOLDER, ROOT, labels, of_kind, pod, problems, render, settings, title, workloads

sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
STAGES = ("text-encoder", "vae-encoder", "denoiser", "vae-decoder")
SWARM = ROOT / "compose/swarm/stack.yaml"
UNITS = ROOT / "compose/systemd"
HEALTH = "/run/qwen-image/health.json"


def run(*arguments, **options):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=60, **options)


def settings_of(program):
    """The environment variables of an executable's settings."""
    return set(re.findall(r"QWEN_IMAGE_[A-Z0-9_]+", run(BINARIES / program, "--help").stdout))


def check_settings(program, values, place):
    """The executable takes these values, and knows all of them."""
    unknown = {name for name in values if name.startswith("QWEN_IMAGE_")} - settings_of(program)
    assert not unknown, f"{place}: {program} has no setting {sorted(unknown)}"
    result = run(BINARIES / program, "--check-config", env={"PATH": os.environ["PATH"], **values})
    assert result.returncode == 0, f"{place}: {result.stderr}"


def test_kubernetes_objects_are_valid_and_fit_together():
    for overlay in ("single", "replicas"):
        assert not (found := problems(render(overlay))), "\n".join([overlay, *found])
    database = render("postgresql")
    found = [problem for check in manifests.CHECKS for problem in check(database)]
    assert not found, found
    for autoscaler in ("keda", "hpa"):
        objects = render("single") + render(f"autoscaling/{autoscaler}")
        assert not (found := problems(objects)), "\n".join([autoscaler, *found])


def test_settings_are_those_of_the_executables():
    for overlay in ("single", "replicas"):
        for item in of_kind(render(overlay), "Deployment"):
            name = item["metadata"]["name"]
            assert pod(item)["containers"][0]["command"] == [name]
            check_settings(name, settings(render(overlay), item), f"{overlay}: {title(item)}")
    stack = yaml.safe_load(filled(SWARM.read_text()))
    for name, service in stack["services"].items():
        check_settings(name, {key: str(value) for key, value in service["environment"].items()}, f"{SWARM.name}: {name}")
    for path in UNITS.glob("*.service"):
        program = re.search(r"^ExecStart=/usr/local/bin/(\S+)$", path.read_text(), re.MULTILINE)[1]
        values = dict(re.findall(r"^Environment=(\w+)=(.*)$", path.read_text(), re.MULTILINE))
        check_settings(program, {key: re.sub("%[tSC]", "/run", value) for key, value in values.items()}, path.name)


class ComposeLoader(yaml.SafeLoader):
    """Reads compose files, whose tags say how one changes another."""


ComposeLoader.add_constructor("!reset", lambda *_: None)
ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def test_compose_and_its_load_balancer():
    base, over = (yaml.load(filled((ROOT / "compose" / name).read_text()), ComposeLoader)["services"] for name in ("compose.yaml", "replicas.yaml"))
    for name in ("gateway", *STAGES):
        check_settings(name, {key: str(value) for key, value in base[name]["environment"].items() if value is not None}, f"compose.yaml: {name}")
    values = {**base["gateway"]["environment"], **over["gateway"]["environment"]}
    check_settings("gateway", {key: str(value) for key, value in values.items() if value is not None}, "replicas.yaml: gateway")
    result = run("haproxy", "-c", "-f", ROOT / "compose/haproxy.cfg")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_migration_is_a_command():
    command = pod(of_kind(render("replicas"), "Job")[0])["containers"][0]["command"]
    result = run(BINARIES / command[0], *command[1:3], "--help")
    assert result.returncode == 0 and f"USAGE: {' '.join(command[:3])} " in result.stdout, f"{command}: {result.stdout[:200]}"
    values = settings(render("replicas"), of_kind(render("replicas"), "Job")[0])
    for option, value in zip(command[3::2], command[4::2], strict=True):
        assert option in result.stdout, option
        assert value.startswith("$(") and value[2:-1] in values, value


def filled(text):
    """A compose file with its variables replaced by their defaults, or by a word where they have none."""
    return re.sub(r"\$\{\w+(:-([^}]*)|:\?[^}]*)\}", lambda match: match[2] if match[2] is not None else "something", text)


def test_workers_find_every_gateway():
    for overlay in ("single", "replicas"):
        objects = render(overlay)
        services = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "Service")}
        workers = services["gateway-workers"]
        assert workers["clusterIP"] == "None" and workers["publishNotReadyAddresses"] is True
        for item in workloads(objects):
            if labels(item).get("qwen-image/role") == "worker":
                assert settings(objects, item)["QWEN_IMAGE_WORKER_GATEWAYS"] == f"tcp://gateway-workers:{workers['ports'][0]['port']}"
            elif item["metadata"]["name"] == "gateway":
                values = settings(objects, item)
                assert manifests.ports(item) == {"http": int(values["QWEN_IMAGE_HTTP_PORT"]), "workers": 5555}
                assert values["QWEN_IMAGE_CLUSTER_ENDPOINTS"] == "tcp://0.0.0.0:5555"
        assert ("QWEN_IMAGE_JOURNAL_PATH" in values_of_gateway(objects)) == (overlay == "single")
        assert ("QWEN_IMAGE_JOURNAL_URL" in values_of_gateway(objects)) == (overlay == "replicas")


def values_of_gateway(objects):
    return settings(objects, next(item for item in of_kind(objects, "Deployment") if item["metadata"]["name"] == "gateway"))


def test_stages_differ_in_name_and_size_only():
    objects = render("single")
    texts = set()
    for name in STAGES:
        item = copy.deepcopy(next(item for item in of_kind(objects, "Deployment") if item["metadata"]["name"] == name))
        resources = pod(item)["containers"][0].pop("resources")
        assert resources["requests"] == resources["limits"], "not of the class Guaranteed"
        texts.add(yaml.safe_dump(item).replace(name, "STAGE"))
    assert len(texts) == 1


def test_probes_ask_what_is_there():
    paths = set(yaml.safe_load((ROOT / "Services/Gateway/HTTP/openapi.yaml").read_text())["paths"])
    for item in of_kind(render("replicas"), "Deployment"):
        container = pod(item)["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "httpGet" in container[probe]:
                assert container[probe]["httpGet"]["path"] in paths and container[probe]["httpGet"]["port"] in manifests.ports(item)
        if item["metadata"]["name"] in STAGES:
            assert container["readinessProbe"]["exec"]["command"] == [item["metadata"]["name"], "--health"]
            check_liveness(container["livenessProbe"]["exec"]["command"])
            assert container["startupProbe"]["exec"]["command"] == ["test", "-e", HEALTH]
            assert settings(render("replicas"), item)["QWEN_IMAGE_WORKER_HEALTH_FILE"] == HEALTH


def check_liveness(command):
    """Alive: the file is fresh, or not there, as while weights are loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "health.json")
        changed = [part.replace(HEALTH, str(path)) for part in command]
        assert run(*changed).returncode == 0, "absent"
        path.write_text("{}")
        assert run(*changed).returncode == 0, "fresh"
        os.utime(path, (time.time() - 300,) * 2)
        assert run(*changed).returncode != 0, "old"


def test_the_network_allows_what_is_needed_only():
    objects = render("replicas") + render("postgresql")
    network = manifests.Network(objects)
    peers = {item["metadata"]["name"]: labels(item) for item in workloads(objects)}
    client = {"elsewhere": "yes"}
    prometheus = {"elsewhere": "yes", "app.kubernetes.io/name": "prometheus"}
    other = ("default", "qwen-image")
    for stage in STAGES:
        assert network.allows(peers[stage], peers["gateway"], 5555)
        assert network.allows(prometheus, peers[stage], 9100, namespaces=("monitoring", "qwen-image"))
        assert not network.allows(peers[stage], peers["gateway"], 8080) and not network.allows(peers["gateway"], peers[stage], 9100)
        assert not network.allows(peers[stage], peers["postgresql"], 5432) and not network.allows(peers[stage], "203.0.113.1", 443)
        assert not network.allows(client, peers[stage], 9100, namespaces=other)
    assert network.allows(client, peers["gateway"], 8080, namespaces=other)
    assert not network.allows(client, peers["gateway"], 5555, namespaces=other)
    for name in ("gateway", "journal-migration"):
        assert network.allows(peers[name], peers["postgresql"], 5432)
    assert not network.allows(client, peers["postgresql"], 5432, namespaces=other)
    assert not network.allows(peers["postgresql"], peers["gateway"], 8080)
    assert network.allows(peers["gateway"], "203.0.113.1", 443) and not network.allows(peers["gateway"], "169.254.169.254", 443)
    assert not network.allows(peers["gateway"], "10.1.2.3", 443) and not network.allows(peers["gateway"], "203.0.113.1", 22)
    dns = {"elsewhere": "yes", "k8s-app": "kube-dns"}
    assert all(network.allows(peer, dns, 53, "UDP", ("qwen-image", "kube-system")) for peer in peers.values())


def test_secrets_are_made_and_kept():
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}
        first, second = (run(FOLDER / "make-secrets.sh", f"{folder}/secrets", env=environment) for _ in range(2))
        assert first.returncode == 0, first.stderr
        assert first.stdout == second.stdout and "qwk-" in first.stderr and "qwk-" not in second.stderr + first.stdout
        objects = [item for item in yaml.safe_load_all(first.stdout) if item]
        assert not (found := list(manifests.schema_problems(objects))), found
        made = {(item["kind"], item["metadata"]["name"]): set(item["data"]) for item in objects if "data" in item}
        assert made == manifests.MADE
        assert all(item["metadata"].get("namespace", "qwen-image") == "qwen-image" for item in objects)
        open_files = [path for path in pathlib.Path(folder, "secrets").rglob("*") if path.stat().st_mode & 0o077 and path.suffix != ".public"]
        assert not open_files, open_files


def test_units_are_right_and_closed():
    with tempfile.TemporaryDirectory() as folder:
        for path in UNITS.glob("qwen-image*"):
            text = re.sub("^ExecStart=.*", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
            pathlib.Path(folder, path.name.replace("@.", "@0.")).write_text(text)
        units = sorted(pathlib.Path(folder).iterdir())
        result = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)
        assert result.returncode == 0 and not result.stderr.strip(), result.stderr
        services = [unit for unit in units if unit.suffix == ".service"]
        assert len(services) == 5
        for unit in services:
            result = run("systemd-analyze", "security", "--offline=true", "--threshold=15", unit)
            assert result.returncode == 0, f"{unit.name}: {result.stdout.splitlines()[-1:]}"
            check_unit(unit.read_text(), unit.name)


def check_unit(text, name):
    values = dict(re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE))
    assert values["Restart"] == "on-failure" and values["RestartPreventExitStatus"] == "78" and values["DynamicUser"] == "yes", name
    grace = re.search(r"^Environment=QWEN_IMAGE_\w+_GRACE_SECONDS=(\d+)$", text, re.MULTILINE)
    longest = int(grace[1]) + (15 if "gateway" in name else 30)
    assert int(values["TimeoutStopSec"]) > longest, f"{name}: is killed after {values['TimeoutStopSec']} s, but may take {longest} s"


def test_the_stack_stops_as_late_as_its_services():
    services = yaml.safe_load(filled(SWARM.read_text()))["services"]
    assert set(services) == {"gateway", *STAGES}
    for name, service in services.items():
        longest = 45 if name == "gateway" else 60
        assert int(service["stop_grace_period"].removesuffix("s")) > longest, name
        assert service["deploy"]["update_config"]["order"] == ("stop-first" if name == "gateway" else "start-first")
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
        for secret in service["secrets"]:
            assert (secret["mode"], secret["uid"]) == (0o400, "10001"), "a secret key that others may read is refused"


def first(objects, kind, name):
    return next(item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name)


def main_container(objects, name):
    return pod(first(objects, "Deployment", name))["containers"][0]


MISTAKES = {
    "no port of that name": lambda o: first(o, "Service", "gateway")["spec"]["ports"][0].update(targetPort="htp"),
    "selects \\[\\]": lambda o: first(o, "Service", "gateway")["spec"]["selector"].update({"app.kubernetes.io/component": "gate"}),
    "its selector does not match": lambda o: labels(first(o, "Deployment", "denoiser")).update({"app.kubernetes.io/component": "x"}),
    "but mounts": lambda o: main_container(o, "denoiser")["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
    "there is no PersistentVolumeClaim": lambda o: o.remove(first(o, "PersistentVolumeClaim", "model")),
    "no key passwort": lambda o: main_container(o, "gateway").update(
        env=[{"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "postgresql", "key": "passwort"}}}]),
    "no node can be drained": lambda o: first(o, "PodDisruptionBudget", "gateway")["spec"].update(minAvailable=3),
    "readOnlyRootFilesystem": lambda o: main_container(o, "vae-decoder")["securityContext"].update(readOnlyRootFilesystem=False),
    "has a token": lambda o: pod(first(o, "Deployment", "gateway")).pop("automountServiceAccountToken"),
    "below no mount": lambda o: main_container(o, "gateway").update(
        env=[{"name": "QWEN_IMAGE_JOURNAL_PATH", "value": "/nowhere/journal"}]),
    "no init container": lambda o: pod(first(o, "Deployment", "gateway"))["initContainers"][0].update(command=["true"]),
    "is killed after": lambda o: pod(first(o, "Deployment", "gateway")).update(terminationGracePeriodSeconds=45),
    "imagePullPolicies": lambda o: main_container(o, "gateway").update(imagePullPolicies="Always"),
    "has no version": lambda o: main_container(o, "gateway").update(image="qwen-image-cluster"),
}


def test_mistakes_are_found():
    objects = render("replicas")
    for expected, change in MISTAKES.items():
        changed = copy.deepcopy(objects)
        change(changed)
        found = problems(changed)
        expected = expected.replace("no port of that name", "has no port htp")
        assert any(re.search(expected, problem) for problem in found), f"{expected}: {found}"


if __name__ == "__main__":
    sys.exit(testing.run("deploy", testing.functions(globals())))
