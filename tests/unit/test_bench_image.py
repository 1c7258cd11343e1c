"""The size of an image without its models."""

import io
import json
import tarfile
from pathlib import Path

from tests.bench.costs import image_bytes


def test_the_layer_of_models_does_not_count(tmp_path: Path) -> None:
    layers = [{"size": 100}, {"size": 7000}, {"size": 20}]
    steps = ["ADD root", "RUN pip", "COPY dir:1 in /models", "COPY dir:2 in /opt"]
    history = [{"created_by": step} | ({"empty_layer": True} if "pip" in step else {}) for step in steps]
    content = {
        "index.json": {"manifests": [{"digest": "sha256:aa"}]},
        "blobs/sha256/aa": {"config": {"digest": "sha256:bb"}, "layers": layers},
        "blobs/sha256/bb": {"history": history},
    }
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        for name, value in content.items():
            data = json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert image_bytes(archive) == 120
