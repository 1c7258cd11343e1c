"""containerd, kubelet, kube-proxy, CoreDNS and metrics-server: their identities, configuration and command lines."""

import json
import sys
from pathlib import Path
from typing import Any

from devcluster import files, manifests, network
from devcluster.build import Binaries
from devcluster.component import Component
from devcluster.controlplane import kubeconfig
from devcluster.network import LOOPBACK
from devcluster.paths import ClusterPaths
from devcluster.pki import Identity
from devcluster.spec import ClusterSpec

IDENTITIES = (
    Identity("kubelet", f"system:node:{network.NODE_NAME}", "system:nodes"),
    Identity("kubelet-serving", f"system:node:{network.NODE_NAME}", "system:nodes", hosts=(network.NODE_ADDRESS,)),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("coredns", manifests.COREDNS_USER),
    Identity("metrics-server", manifests.METRICS_SERVER_USER),
    Identity("metrics-server-serving", manifests.METRICS_SERVER_HOST, hosts=(manifests.METRICS_SERVER_HOST,)),
)
KUBECONFIGS = ("kubelet", "kube-proxy", "coredns", "metrics-server")
PAUSE_IMAGE = "localhost/ragservice/pause:dev"
# Inside the node's mount namespace /run is the node's own.
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


def forwarder(spec: ClusterSpec) -> Component:
    """Carries the host's loopback port of the API server into the node's network. Its health is seen from outside."""
    port = spec.ports.apiserver
    return Component(
        "forwarder",
        (sys.executable, "-m", "devcluster.forward", LOOPBACK, str(port)),
        health=f"https://{LOOPBACK}:{port}/readyz",
        listen=port,
    )


def container_runtime(paths: ClusterPaths, cni: Path) -> Component:
    """containerd; its configuration is written."""
    network_config = paths.config / "cni" / "10-devcluster.conflist"
    network_config.parent.mkdir(exist_ok=True)
    files.write(network_config, json.dumps(_POD_NETWORK, indent=2))
    config = paths.config / "containerd.toml"
    files.write(config, _containerd(paths, cni))
    return Component(
        "containerd", ("containerd", f"--config={config}"), health=f"unix://{CONTAINERD_SOCKET}", inputs=(config,)
    )


def node_components(paths: ClusterPaths, binaries: Binaries, cgroup: str) -> list[Component]:
    """Everything that works on the API server and the container runtime; its configuration is written."""
    config, program = paths.config, str(binaries.kubernetes)
    resolver = config / "resolv.conf"
    files.write(resolver, f"nameserver {network.DNS_ADDRESS}\n")
    files.write(config / "kubelet.json", json.dumps(_kubelet(paths, cgroup, resolver), indent=2))
    files.write(config / "kube-proxy.json", json.dumps(_kube_proxy(paths), indent=2))
    files.write(config / "Corefile", _corefile(paths))
    metrics = kubeconfig(paths, "metrics-server")
    serving = paths.pki / "metrics-server-serving"
    return [
        Component(
            "kubelet",
            (
                program, "kubelet", f"--config={config / 'kubelet.json'}",
                f"--kubeconfig={kubeconfig(paths, 'kubelet')}", f"--hostname-override={network.NODE_NAME}",
                f"--node-ip={network.NODE_ADDRESS}", f"--root-dir={paths.node / 'kubelet'}",
                f"--cert-dir={paths.node / 'kubelet' / 'pki'}",
            ),
            health=f"http://{LOOPBACK}:10248/healthz",
            inputs=(config / "kubelet.json", kubeconfig(paths, "kubelet"), resolver),
        ),
        Component(
            "kube-proxy",
            (program, "kube-proxy", f"--config={config / 'kube-proxy.json'}"),
            health=f"http://{LOOPBACK}:10256/healthz",
            inputs=(config / "kube-proxy.json", kubeconfig(paths, "kube-proxy")),
        ),
        Component(
            "coredns",
            (str(binaries.coredns), "-conf", str(config / "Corefile")),
            health=f"http://{LOOPBACK}:8181/ready",
            inputs=(config / "Corefile", kubeconfig(paths, "coredns")),
        ),
        Component(
            "metrics-server",
            (
                str(binaries.metrics_server), f"--kubeconfig={metrics}", f"--authentication-kubeconfig={metrics}",
                f"--authorization-kubeconfig={metrics}", f"--bind-address={network.NODE_ADDRESS}",
                f"--secure-port={manifests.METRICS_SERVER_PORT}", f"--tls-cert-file={serving}.crt",
                f"--tls-private-key-file={serving}.key", f"--kubelet-certificate-authority={paths.pki / 'ca.crt'}",
                "--kubelet-preferred-address-types=InternalIP",
                # The shortest it accepts, with the timeout below it that it wants; usual are 15s and 10s.
                "--metric-resolution=10s",
                "--kubelet-request-timeout=5s",
            ),
            # Not /readyz: that waits for the first samples, half a minute after the first pod.
            health=f"https://{network.NODE_ADDRESS}:{manifests.METRICS_SERVER_PORT}/livez",
            inputs=(metrics, serving.with_suffix(".crt"), paths.pki / "ca.crt"),
        ),
    ]  # fmt: skip


_POD_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "devcluster",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods",
            "isGateway": True,
            # A pod may reach itself through its own Service.
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                # Leases belong to the namespaces: both end together.
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": network.POD_SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}


def _containerd(paths: ClusterPaths, cni: Path) -> str:
    # Version 2 is read by containerd 1.6 to 2.x.
    return f"""version = 2
root = "{paths.node / "containerd"}"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Where the machine denies lower OOM scores (no CAP_SYS_RESOURCE) containers would not start.
  restrict_oom_score_adj = true
  # Its profile would be loaded into the machine's kernel and stay there.
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{paths.config / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _kubelet(paths: ClusterPaths, cgroup: str, resolver: Path) -> dict[str, Any]:
    serving = paths.pki / "kubelet-serving"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(paths.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{serving}.crt",
        "tlsPrivateKeyFile": f"{serving}.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDomain": network.CLUSTER_DOMAIN,
        "clusterDNS": [network.DNS_ADDRESS],
        "resolvConf": str(resolver),
        # Many machines still mount cgroup v1; the kubelet refuses it unless told.
        "failCgroupV1": False,
        # systemd is not on every machine, and not in the node's namespaces.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failSwapOn": False,
        # It would measure the disk through a file system it does not know (overlay, 9p); nothing here limits disk.
        "localStorageCapacityIsolation": False,
        # No registry to pull an image from again: none is ever removed for space.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        # kube-proxy uses nftables.
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(paths.node / "logs"),
        "volumePluginDir": str(paths.node / "volume-plugins"),
        # Quick to see what happens, as tests and demonstrations want it.
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _kube_proxy(paths: ClusterPaths) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig(paths, "kube-proxy"))},
        "hostnameOverride": network.NODE_NAME,
        "clusterCIDR": network.POD_SUBNET,
        "bindAddress": network.NODE_ADDRESS,
        "healthzBindAddress": f"{LOOPBACK}:10256",
        "metricsBindAddress": f"{LOOPBACK}:10249",
        # Zero: leave the machine's connection tracking limits alone.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _corefile(paths: ClusterPaths) -> str:
    return f""".:53 {{
    bind {network.DNS_ADDRESS}
    errors
    ready {LOOPBACK}:8181
    kubernetes {network.CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {kubeconfig(paths, "coredns")} devcluster-{paths.name}
        pods insecure
    }}
    cache 5
}}
"""
