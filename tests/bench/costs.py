"""What the service costs beside time: how long it takes to start, memory, and the size of its image."""

import asyncio
import itertools
import json
import statistics
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from devcluster import images
from devcluster.errors import DevclusterError
from tests.bench import load, servers, texts
from tests.bench.prepared import Prepared

STARTS = 5
READ = 60  # requests of mixed lengths that each model has answered when memory is read


def settings(models: Sequence[Prepared], name: str, redis: str = "", **model: Any) -> dict[str, Any]:
    """Settings of the service. `model`: of every model, in camelCase."""
    return {
        "service": f"bench/{name.replace(', ', '-')}",
        "models": [{"name": one.name, "uri": one.uri, **model} for one in models],
        "cache": {"ttl": "1h"} | ({"redis": {"url": redis}} if redis else {}),
        "requestTimeout": "60s",
        "drain": "0s",
    }


def ready(model: Prepared, out: Path) -> float:
    """Seconds from start to ready with one calibrated model, median."""
    taken = []
    for _ in range(STARTS):
        server = servers.ours("ready", settings([model], "ready"), out)
        began = perf_counter()
        with server:
            taken.append(perf_counter() - began)
    return statistics.median(taken)


def ladder(models: Sequence[Prepared], out: Path, words: texts.Texts) -> float:
    """Megabytes that the service holds with these models once it has ranked mixed lengths with each."""
    with servers.ours("ladder", settings(models, "ladder"), out) as server:
        for model in models:
            asked = itertools.islice(words.requests(texts.MIXED, model.name), READ)
            bodies = [{**server.body(one), "model": model.name} for one in asked]
            requests = [load.request("/rerank", json.dumps(body).encode()) for body in bodies]
            for start in range(0, READ, 4):
                asyncio.run(load.burst(server.port, requests[start : start + 4]))
        return server.rss()


def image() -> float | None:
    """Megabytes of the service's image, compressed, without the layer of models; None where it cannot be built."""
    try:
        *_, built = images.build(["service"])
    except DevclusterError as error:
        print(f"image_mb is left out: {error}", file=sys.stderr)
        return None
    return image_bytes(built.archive) / 1e6


def image_bytes(archive: Path) -> int:
    """Bytes of the layers of the one image in an OCI archive, but for those that copy to /models."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            file = tar.extractfile(name)
            assert file, name
            return json.load(file)

        (entry,) = read("index.json")["manifests"]
        manifest = read(_blob(entry["digest"]))
        history = read(_blob(manifest["config"]["digest"]))["history"]
    made_by = [step.get("created_by", "") for step in history if not step.get("empty_layer")]
    layers = manifest["layers"]
    return sum(layer["size"] for layer, by in zip(layers, made_by, strict=True) if "/models" not in by)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
