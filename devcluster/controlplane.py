"""etcd, API server, controller manager and scheduler: their identities and command lines."""

import base64
import json
from pathlib import Path

from devcluster import files, network
from devcluster.build import Binaries
from devcluster.component import Component
from devcluster.network import LOOPBACK
from devcluster.paths import ClusterPaths
from devcluster.pki import FRONT_PROXY_CA, Identity
from devcluster.spec import ClusterSpec

IDENTITIES = (
    Identity("admin", "kubernetes-admin", "system:masters"),
    Identity(
        "apiserver", "kube-apiserver",
        hosts=(
            LOOPBACK, network.NODE_ADDRESS, network.API_SERVICE_ADDRESS, "localhost", "kubernetes",
            "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{network.CLUSTER_DOMAIN}",
        ),
    ),
    Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    Identity("front-proxy-client", "front-proxy-client", authority=FRONT_PROXY_CA),
    Identity("controller-manager", "system:kube-controller-manager"),
    Identity("scheduler", "system:kube-scheduler"),
)  # fmt: skip
KUBECONFIGS = ("controller-manager", "scheduler")


def write_kubeconfigs(paths: ClusterPaths, spec: ClusterSpec, names: tuple[str, ...]) -> None:
    """Write the administrator's kubeconfig and one for each named identity."""
    for name in names:
        files.write(kubeconfig(paths, name), _kubeconfig(paths, spec, name), mode=0o600)
    files.write(paths.kubeconfig, _kubeconfig(paths, spec, "admin"), mode=0o600)


def kubeconfig(paths: ClusterPaths, name: str) -> Path:
    """The path of an identity's kubeconfig."""
    return paths.config / f"{name}.kubeconfig"


def _kubeconfig(paths: ClusterPaths, spec: ClusterSpec, name: str) -> str:
    def data(file: str) -> str:
        return base64.b64encode((paths.pki / file).read_bytes()).decode()

    cluster = f"devcluster-{paths.name}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": name}}],
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": f"https://{LOOPBACK}:{spec.ports.apiserver}",
                    "certificate-authority-data": data("ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")},
            }
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def storage_and_api(paths: ClusterPaths, spec: ClusterSpec, binaries: Binaries) -> list[Component]:
    """The first set: etcd and the API server, which waits for it."""
    pki, ports = paths.pki, spec.ports
    etcd = f"http://{LOOPBACK}:{ports.etcd}"
    program = str(binaries.kubernetes)
    certificates = ("apiserver", "apiserver-kubelet-client", "front-proxy-client", "ca", FRONT_PROXY_CA)
    reach = (
        # Pods reach it at the node's address, the host through a forwarder that ends on the loopback.
        ["--bind-address=0.0.0.0", f"--advertise-address={network.NODE_ADDRESS}"]
        if spec.nodes
        # Without a node nobody uses the Service `kubernetes`, and a loopback address is refused as its endpoint.
        else [f"--bind-address={LOOPBACK}", "--endpoint-reconciler-type=none"]
    )
    return [
        Component(
            "etcd",
            (
                program, "etcd", f"--data-dir={paths.etcd}", f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}", f"--listen-peer-urls=http://{LOOPBACK}:{ports.etcd_peer}",
                # Survives a kill of the process, not a loss of power: right for what is thrown away.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ),
            health=f"{etcd}/readyz",
        ),
        Component(
            "kube-apiserver",
            (
                program, "kube-apiserver", *reach, f"--secure-port={ports.apiserver}", f"--etcd-servers={etcd}",
                f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={pki}/ca.crt",
                "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
                # A privileged pod is a matter of Pod Security, not of a switch of the server.
                "--allow-privileged=true",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={pki}/service-account.key",
                f"--service-account-key-file={pki}/service-account.pub",
                f"--service-cluster-ip-range={network.SERVICE_SUBNET}",
                f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
                f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                # The node's host name is in no DNS.
                "--kubelet-preferred-address-types=InternalIP",
                # Aggregated APIs (metrics) are called at their endpoints, so they don't depend on kube-proxy.
                "--enable-aggregator-routing=true",
                f"--requestheader-client-ca-file={pki}/{FRONT_PROXY_CA}.crt",
                "--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
                f"--proxy-client-key-file={pki}/front-proxy-client.key",
            ),
            health=f"https://{LOOPBACK}:{ports.apiserver}/readyz",
            inputs=tuple(pki / f"{name}.crt" for name in certificates),
        ),
    ]  # fmt: skip


def controllers(paths: ClusterPaths, spec: ClusterSpec, binaries: Binaries) -> list[Component]:
    """The second set: what works on the API server."""
    pki, ports = paths.pki, spec.ports
    return [
        Component(
            "kube-controller-manager",
            (
                str(binaries.kubernetes), "kube-controller-manager", *_client_flags(paths, "controller-manager"),
                f"--bind-address={LOOPBACK}", f"--secure-port={ports.controller_manager}",
                # Elections would only delay a start: there is one of each.
                "--leader-elect=false",
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={pki}/service-account.key", f"--root-ca-file={pki}/ca.crt",
                f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key",
                # The default of 20 requests a second makes the first service accounts wait for 5 s.
                "--kube-api-qps=500", "--kube-api-burst=1000",
                f"--horizontal-pod-autoscaler-sync-period={spec.hpa_sync}",
            ),
            health=f"https://{LOOPBACK}:{ports.controller_manager}/healthz",
            inputs=(kubeconfig(paths, "controller-manager"), pki / "ca.crt", pki / "service-account.pub"),
        ),
        Component(
            "kube-scheduler",
            (
                str(binaries.kubernetes), "kube-scheduler", *_client_flags(paths, "scheduler"),
                f"--bind-address={LOOPBACK}", f"--secure-port={ports.scheduler}", "--leader-elect=false",
            ),
            health=f"https://{LOOPBACK}:{ports.scheduler}/healthz",
            inputs=(kubeconfig(paths, "scheduler"),),
        ),
    ]  # fmt: skip


def _client_flags(paths: ClusterPaths, name: str) -> list[str]:
    own = kubeconfig(paths, name)
    return [f"--kubeconfig={own}", f"--authentication-kubeconfig={own}", f"--authorization-kubeconfig={own}"]
