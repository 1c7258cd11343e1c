"""A model hub inside the cluster: the one that the service's tests use, in a pod that knows one tiny model."""

import base64
import json
import tempfile
from pathlib import Path

from tests import models
from tests.e2e.cluster import ROOT, Cluster

NAME = "acme/ranker"
PORT = 8080
_SERVE = f"""
import shutil, sys, threading
from pathlib import Path
sys.path.insert(0, "/hub")
import hub
repository = Path("/tmp/repository")
repository.mkdir()
for name in ("config.json", "tokenizer.json", "model.safetensors"):
    shutil.copy(f"/hub/{{name}}", repository)
with hub.serving("0.0.0.0", {PORT}) as it:
    it.repositories["{NAME}"] = repository
    threading.Event().wait()
"""


def start(cluster: Cluster, namespace: str) -> str:
    """Run it in the namespace, and return the address at which pods reach it."""
    labels = {"app": "hub"}
    metadata = {"name": "hub", "namespace": namespace, "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        files = {path.name: path.read_bytes() for path in models.cross_encoder(Path(folder)).iterdir()}
    files |= {"hub.py": (ROOT / "tests" / "service" / "hub.py").read_bytes(), "serve.py": _SERVE.encode()}
    container = {
        "name": "hub",
        "image": "localhost/ragservice/base:dev",
        "command": ["python3", "/hub/serve.py"],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": "files", "mountPath": "/hub"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "files", "configMap": {"name": "hub"}}]}
    items = [
        {"kind": "ConfigMap", "binaryData": {name: base64.b64encode(data).decode() for name, data in files.items()}},
        {"kind": "Service", "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        {"kind": "Pod", "spec": {**spec, "terminationGracePeriodSeconds": 0}},
    ]
    objects = [{"apiVersion": "v1", "metadata": metadata, **item} for item in items]
    body = {"apiVersion": "v1", "kind": "List", "items": objects}
    cluster.run("kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    cluster.run("kubectl", "wait", "pod/hub", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    return f"http://hub.{namespace}.svc:{PORT}"
