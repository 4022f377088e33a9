"""Holds packaging/kubernetes against Kubernetes' own schemas, Pod Security's profile "restricted", and this project; and the
compose files of clusters against this project.

Run by `make test-manifests`, which installs the schemas. Every check is an assertion with its place.
"""

import pathlib
import re
import sys

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "packaging/kubernetes").glob("*.yaml"))
# The oldest and the newest that the schemas are checked for; the oldest has every field that is used.
VERSIONS = ["1.29", "1.37"]

checks = 0


def check(true, what):
    global checks
    checks += 1
    assert true, what


def is_restricted(pod):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, with more than it asks for."""
    whole = pod["securityContext"]
    check(whole["runAsNonRoot"] is True and whole["runAsUser"] > 0, "root")
    check(whole["seccompProfile"] == {"type": "RuntimeDefault"}, "seccomp")
    for word in ("hostNetwork", "hostPID", "hostIPC", "hostUsers"):
        check(not pod.get(word), word)
    check(pod["automountServiceAccountToken"] is False, "a token of the cluster")
    check(pod["enableServiceLinks"] is False, "the environment of other services")
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container["securityContext"]
        check(own["allowPrivilegeEscalation"] is False, container["name"])
        check(own["readOnlyRootFilesystem"] is True, container["name"])
        check(own["capabilities"] == {"drop": ["ALL"]}, container["name"])
        check(not own.get("privileged"), container["name"])
        for port in container["ports"]:
            check("hostPort" not in port, container["name"])
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod["volumes"]:
        check(set(volume) - {"name"} <= allowed, volume["name"])


def parts(pod, claims=()):
    """The container of a pod, its settings, its mounts and its volumes; `claims` are those that each pod has of its own."""
    (container,) = pod["containers"]
    settings = set(re.findall(r"`(PROCESSION_[A-Z_]+)`", (ROOT / "docs/configuration.md").read_text()))
    env = {item["name"]: item.get("value") for item in container["env"]}
    check(settings and set(env) <= settings | {"HOME", "POD_NAME"}, set(env) - settings)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    check(set(mounts.values()) == {*volumes, *claims}, "a volume that nobody mounts, or the other way round")
    check("/var/lib/procession" in mounts and env["PROCESSION_STATE_DIR"].startswith("/var/lib/procession/"), "state")
    return container, env, mounts, volumes


def has_probes(container, scheme, readiness):
    port = container["ports"][0]
    openapi = yaml.safe_load((ROOT / "openapi.yaml").read_text())
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = container[probe]["httpGet"]
        check(get["port"] == port["name"] and get["scheme"] == scheme, probe)
        path, _, query = get["path"].partition("?")
        asked = openapi["paths"][path]["get"]
        check(asked.get("security") == [], f"{probe} would need a token")
        known = {parameter["name"] for parameter in asked.get("parameters", [])}
        check(set(filter(None, query.split("&"))) <= known, f"{probe} asks with what there is not")
    # A liveness probe that fails under a full disk would end the jobs; readiness is another question.
    paths = [container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
    check(paths == ["/healthz", readiness], paths)


def is_of_the_image(pod, container, env):
    check(pod["terminationGracePeriodSeconds"] > float(env["PROCESSION_SHUTDOWN_GRACE_SECONDS"]) + 5, "the grace")
    image = (ROOT / "Dockerfile").read_text()
    user = pod["securityContext"]["runAsUser"]
    check(f"USER {user}:{pod['securityContext']['runAsGroup']}" in image, "the user of the image")
    check(pod["securityContext"]["fsGroup"] == user, "the group of the volume")
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    check(container["image"] == f"procession:{version}", "the version of the image")


def talks_tls(container, env, mounts, volumes):
    # The names in a Secret of the type kubernetes.io/tls.
    tls = next(path for path, name in mounts.items() if name == "tls")
    check(env["PROCESSION_TLS_CERT"] == f"{tls}/tls.crt" and env["PROCESSION_TLS_KEY"] == f"{tls}/tls.key", "TLS")
    # src/tls.rs refuses a key that others than owner and group can read.
    check(volumes["tls"]["secret"]["defaultMode"] & 0o027 == 0, "the mode of the key")
    check(volumes["tls"]["secret"]["defaultMode"] == 0o440, "the mode of the key is octal")
    port = container["ports"][0]
    check(env["PROCESSION_LISTEN"].endswith(f":{port['containerPort']}"), "the port")
    has_probes(container, "HTTPS", "/readyz?serving")


def fits_the_program(pod, documents):
    container, env, mounts, volumes = parts(pod)
    talks_tls(container, env, mounts, volumes)
    port = container["ports"][0]
    is_of_the_image(pod, container, env)
    # Of those of one kind, the first is the hub's.
    by_kind = {document["kind"]: document for document in reversed(documents)}
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    check(by_kind["Service"]["spec"]["selector"] == labels, "the Service's selector")
    check(by_kind["Deployment"]["spec"]["selector"]["matchLabels"] == labels, "the Deployment's selector")
    check(by_kind["Service"]["spec"]["ports"][0]["targetPort"] == port["name"], "the Service's port")
    check(by_kind["Deployment"]["spec"]["replicas"] == 1, "replicas")
    check(by_kind["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}, "two pods on one state directory")
    claim = volumes["state"]["persistentVolumeClaim"]["claimName"]
    check(by_kind["PersistentVolumeClaim"]["metadata"]["name"] == claim, "the claim")
    check(by_kind["ServiceAccount"]["automountServiceAccountToken"] is False, "a token of the cluster")
    check(by_kind["ServiceAccount"]["metadata"]["name"] == pod["serviceAccountName"], "the account")


def names_its_pods(kind, documents):
    """The headless Service that a StatefulSet needs."""
    spec = kind["spec"]
    names = next(it for it in documents if it["kind"] == "Service" and it["metadata"]["name"] == spec["serviceName"])
    check(names["spec"]["clusterIP"] == "None", "the names of the pods")
    labels = spec["template"]["metadata"]["labels"]
    check(spec["selector"]["matchLabels"] == names["spec"]["selector"] == labels, "the selector of the pods")
    return names


def the_api_nodes_share_a_ledger(apis, documents):
    spec, pod = apis["spec"], apis["spec"]["template"]["spec"]
    claims = [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    container, env, mounts, volumes = parts(pod, claims)
    check(mounts["/var/lib/procession"] in claims, "API nodes that share a state directory")
    talks_tls(container, env, mounts, volumes)
    is_of_the_image(pod, container, env)
    names, service = names_its_pods(apis, documents), documents[1]
    check(names["spec"]["publishNotReadyAddresses"] is True, "who is not ready is asked who leads")
    port = names["spec"]["ports"][0]["port"]
    check(port == container["ports"][0]["containerPort"], "a headless Service maps no ports")
    domain = f"{names['metadata']['name']}.procession.svc"
    check(env["PROCESSION_ADVERTISE"] == f"https://$(POD_NAME).{domain}:{port}", "where it is reached")
    hosts = env["PROCESSION_ALLOWED_HOST"].split(",")
    for number in range(spec["replicas"]):
        check(f"{apis['metadata']['name']}-{number}.{domain}" in hosts, "a name that API nodes refuse")
    check(f"{service['metadata']['name']}.procession.svc" in hosts, "the name that clients use")
    check(spec["replicas"] in (2, 3) and env["PROCESSION_ROLE"] == "api", "API nodes")
    secret = next(path for path, name in mounts.items() if name == "cluster")
    check(env["PROCESSION_CLUSTER"] == f"@{secret}/url", "the password is in no environment")
    check(env["PROCESSION_CLUSTER_KEY_FILE"] == f"{secret}/key", "what seals the ledger")
    # src/ledger/key.rs refuses a key that others than owner and group can read.
    check(volumes["cluster"]["secret"]["defaultMode"] == 0o440, "the mode of the key")
    authority = next(path for path, name in mounts.items() if name == "ca")
    check(env["PROCESSION_JOIN_CA"].startswith(f"{authority}/"), "the authority of the others")
    labels = spec["template"]["metadata"]["labels"]
    check(service["spec"]["selector"] == labels and "clusterIP" not in service["spec"], "clients reach them")
    budget = next(it for it in documents if it["kind"] == "PodDisruptionBudget")
    check(budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": labels}}, "one at a time")
    return env, service


def the_nodes_join(nodes, documents, hub_env, hub):
    spec, pod = nodes["spec"], nodes["spec"]["template"]["spec"]
    claims = [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    container, env, mounts, volumes = parts(pod, claims)
    check(mounts["/var/lib/procession"] in claims, "pods that share a state directory")
    has_probes(container, "HTTP", "/readyz")
    is_of_the_image(pod, container, env)
    names_its_pods(nodes, documents)
    check(spec["template"]["metadata"]["labels"] != hub["spec"]["selector"], "clients would reach nodes")
    host = env["PROCESSION_JOIN"].removeprefix("https://")
    check(host.split(".")[0] == hub["metadata"]["name"] and hub["spec"]["ports"][0]["port"] == 443, "another hub")
    check(host in hub_env["PROCESSION_ALLOWED_HOST"].split(","), "a name that the hub refuses")
    check(env["PROCESSION_NODE_NAME"] == "$(POD_NAME)", "its name")
    tokens = next(path for path, name in mounts.items() if name == "tokens")
    check(env["PROCESSION_JOIN_TOKEN_FILE"] == f"{tokens}/$(POD_NAME)", "the token of another node")
    check(volumes["tokens"]["secret"]["defaultMode"] & 0o027 == 0, "the mode of the tokens")
    authority = next(path for path, name in mounts.items() if name == "ca")
    check(env["PROCESSION_JOIN_CA"].startswith(f"{authority}/"), "its authority")


# What the example uses of the operator's API (monitoring.coreos.com/v1), whose schema is not Kubernetes' own.
ENDPOINT = {"port": str, "scheme": str, "interval": str, "authorization": dict, "tlsConfig": dict}


def the_monitor_finds_the_service(documents, env):
    monitor = yaml.safe_load((ROOT / "packaging/prometheus/servicemonitor.yaml").read_text())
    check((monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor"), "the kind")
    service = next(document for document in documents if document["kind"] == "Service")
    check(monitor["spec"]["selector"] == {"matchLabels": service["metadata"]["labels"]}, "its selector")
    (endpoint,) = monitor["spec"]["endpoints"]
    for field, value in endpoint.items():
        check(isinstance(value, ENDPOINT.get(field, ())), field)
    check(endpoint["port"] in [port["name"] for port in service["spec"]["ports"]], "a port that the Service has not")
    check(set(endpoint["authorization"]["credentials"]) == {"name", "key"}, "the token's Secret")
    check(set(endpoint["tlsConfig"]) == {"serverName", "ca"}, "its TLS")
    check(set(endpoint["tlsConfig"]["ca"]["secret"]) == {"name", "key"}, "the certificate's Secret")
    check(endpoint["tlsConfig"]["serverName"] in env["PROCESSION_ALLOWED_HOST"].split(","), "a name that the service refuses")


def the_schemas_refuse_what_is_wrong(deployment):
    """Without this, a validator that checks nothing would pass."""
    for wrong in ({"spec": {**deployment["spec"], "replica": 1}}, {"spec": {**deployment["spec"], "replicas": "one"}}):
        try:
            kubernetes_validate.validate({**deployment, **wrong}, VERSIONS[-1], strict=True)
        except kubernetes_validate.ValidationError:
            continue
        check(False, f"taken: {wrong}")


def compose_services(name):
    """The services of a compose file that are Procession: each has what is its own. And the others."""
    whole = yaml.safe_load((ROOT / "packaging" / name).read_text())
    settings = set(re.findall(r"`(PROCESSION_[A-Z_]+)`", (ROOT / "docs/configuration.md").read_text()))
    services = dict(whole["services"])
    others = {name: services.pop(name) for name, service in whole["services"].items() if service["image"] != "procession"}
    for name, service in services.items():
        env = service["environment"]
        check(set(env) <= settings, set(env) - settings)
        hardened = (service["read_only"], service["cap_drop"], service["security_opt"])
        check(hardened == (True, ["ALL"], ["no-new-privileges:true"]), name)
        grace = float(service["stop_grace_period"].removesuffix("s"))
        check(grace >= float(env["PROCESSION_SHUTDOWN_GRACE_SECONDS"]) + 5, f"{name}: the grace")
        check(service["volumes"] == [f"{name}:/var/lib/procession"] and name in whole["volumes"], f"{name}: its volume")
        used = {path.removeprefix("@").removeprefix("/run/secrets/") for path in env.values() if "/run/secrets/" in path}
        if "db" in others:
            # The authority of the database is in the address.
            used.add("ca-pem")
        check(used == set(service["secrets"]) <= set(whole["secrets"]), f"{name}: its secrets")
        check(env["PROCESSION_NODE_NAME"] == name, f"{name}: its name")
    for secret, file in whole["secrets"].items():
        check(file["file"] == f"./{'.'.join(secret.rsplit('-', 1))}", f"{secret}: its file")
    return services, others


def compose_has_nodes(services, join):
    for name, node in services.items():
        env = node["environment"]
        check(name in env["PROCESSION_JOIN_TOKEN_FILE"], f"{name}: its token")
        check(env["PROCESSION_JOIN"] == join and "ports" not in node, f"{name}: another hub")
    check(len(services) == 2, "the nodes")


def compose_is_a_cluster():
    """packaging/compose-cluster.yaml: the hub is who its nodes join."""
    services, others = compose_services("compose-cluster.yaml")
    check(not others, others)
    hub = services.pop("hub")
    env = hub["environment"]
    check((env["PROCESSION_CLUSTER"], env["PROCESSION_ROLE"]) == ("local", "api"), "it is no hub")
    (port,) = hub["ports"]
    check(port.startswith("127.0.0.1:") and env["PROCESSION_LISTEN"].endswith(port.rsplit(":", 1)[1]), "the port")
    check(env["PROCESSION_ALLOWED_HOST"] == "hub", "its name")
    compose_has_nodes(services, "https://hub:8443")


def compose_has_a_database():
    """packaging/compose-postgres.yaml: three API nodes on one database, and nodes that know all of them."""
    services, others = compose_services("compose-postgres.yaml")
    names = ["api1", "api2", "api3"]
    apis = {name: services.pop(name) for name in names}
    ports = set()
    for name, api in apis.items():
        env = api["environment"]
        check((env["PROCESSION_ROLE"], env["PROCESSION_CLUSTER"]) == ("api", "@/run/secrets/cluster-url"), name)
        check(env["PROCESSION_ADVERTISE"] == f"https://{name}:8443", f"{name}: where it is reached")
        check(env["PROCESSION_TLS_CERT"].endswith(f"/{name}-pem"), f"{name}: its certificate")
        check(env["PROCESSION_ALLOWED_HOST"].split(",") == names, f"{name}: the names that clients use")
        (port,) = api["ports"]
        check(port.startswith("127.0.0.1:") and port.endswith(":8443"), f"{name}: the port")
        ports.add(port)
    check(len(ports) == 3, "one port for two")
    (database,) = others.values()
    check("ssl=on" in database["command"] and "ports" not in database, "the database")
    compose_has_nodes(services, ",".join(f"https://{name}:8443" for name in names))


def main():
    check(MANIFESTS, "no manifest")
    for path in MANIFESTS:
        documents = list(yaml.safe_load_all(path.read_text()))
        for document in documents:
            for version in VERSIONS:
                # Raises where the document is not of that version.
                taken = kubernetes_validate.validate(document, version, strict=True)
                check(taken == version, f"{path.name}: {document['kind']} in {version}")
        sets = {it["metadata"]["name"]: it for it in documents if it["kind"] == "StatefulSet"}
        deployments = [document for document in documents if document["kind"] == "Deployment"]
        for kind in deployments + list(sets.values()):
            the_schemas_refuse_what_is_wrong(kind)
            is_restricted(kind["spec"]["template"]["spec"])
        service = next(document for document in documents if document["kind"] == "Service")
        if deployments:
            pod = deployments[0]["spec"]["template"]["spec"]
            fits_the_program(pod, documents)
            env = parts(pod)[1]
        else:
            env, service = the_api_nodes_share_a_ledger(sets.pop("procession-api"), documents)
        for nodes in sets.values():
            check(env["PROCESSION_ROLE"] == "api" and env["PROCESSION_CLUSTER"], "it is no hub")
            the_nodes_join(nodes, documents, env, service)
        the_monitor_finds_the_service(documents, env)
    compose_is_a_cluster()
    compose_has_a_database()
    print(f"kubernetes: {checks} passed, 0 failed")


sys.exit(main())
