"""What the load check has to know of a RAGService: a view of its spec, and the ways to read it."""

import json
import subprocess
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic.alias_generators import to_camel

from rag_loadtest.errors import ConfigurationError
from rag_service.contract.duration import Duration, parse

KIND = "RAGService"
RESOURCE = "ragservices.ragservice.dev"


class _View(BaseModel):
    """Some fields of a larger object. Defaults are the API's, for files that the API server has not filled in yet."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ReferenceRequest(_View):
    """The request for which p95 is meant."""

    documents: PositiveInt = 10
    tokens: PositiveInt = 60


class Objective(_View):
    """The SLO. `availability` is in percent."""

    p95: Duration = Field(gt=timedelta(0))
    availability: Decimal = Field(default=Decimal("99.9"), ge=0, le=100)
    request: ReferenceRequest = ReferenceRequest()
    timeout: Duration = Field(default=parse("30s"), gt=timedelta(0))


class LoadCheck(_View):
    """The load at which the SLO is verified: requests in flight."""

    users: PositiveInt = 50


class Spec(_View):
    """What the load check reads of `spec`."""

    slo: Objective
    load_check: LoadCheck = LoadCheck()


class Metadata(_View):
    """Name and namespace; a file may leave the namespace to `kubectl apply`."""

    name: str
    namespace: str | None = None


class Status(_View):
    """Where the service answers inside the cluster."""

    url: str | None = None


class Target(_View):
    """A RAGService as the load check sees it."""

    metadata: Metadata
    spec: Spec
    status: Status = Status()


def from_file(path: Path) -> Target:
    """The one RAGService in a manifest. Raises ConfigurationError when it has none, several, or a wrong one."""
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    found = [document for document in documents if isinstance(document, dict) and document.get("kind") == KIND]
    if len(found) != 1:
        raise ConfigurationError(f"{path} must hold exactly one {KIND}, and holds {len(found)}")
    return _view(found[0], str(path))


def from_cluster(name: str, namespace: str | None) -> Target:
    """The RAGService that kubectl finds in the namespace, or in its current one. Raises ConfigurationError."""
    return _view(_kubectl("get", RESOURCE, name, namespace=namespace), f"{KIND} {name}")


def replicas(name: str, namespace: str | None) -> str:
    """`replicas 2 of 4 ready, 4 needed`, as far as the cluster tells; `replicas ?` where it does not."""
    try:
        listed = _kubectl("get", f"{RESOURCE}/{name}", f"deployments.apps/{name}-reranker", namespace=namespace)
    except ConfigurationError:
        return "replicas ?"
    service, deployment = listed["items"]
    ready, wanted = deployment.get("status", {}).get("readyReplicas", 0), deployment["spec"]["replicas"]
    needed = service.get("status", {}).get("scaling", {}).get("requiredReplicas", "?")
    return f"replicas {ready} of {wanted} ready, {needed} needed"


def _kubectl(*arguments: str, namespace: str | None) -> dict[str, Any]:
    """Run kubectl, with the user's own access to the cluster, and read its JSON. Raises ConfigurationError."""
    place = ["--namespace", namespace] if namespace else []
    try:
        done = subprocess.run(
            ["kubectl", *arguments, *place, "--output", "json"], capture_output=True, check=True, timeout=30
        )
    except FileNotFoundError:
        message = "kubectl is not on the PATH: install it, or give the RAGService as a file"
        raise ConfigurationError(message) from None
    except subprocess.TimeoutExpired:
        raise ConfigurationError("kubectl did not answer within 30s: does the API server?") from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise ConfigurationError(f"kubectl {' '.join(arguments)}: {message}") from None
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _view(body: dict[str, Any], where: str) -> Target:
    try:
        return Target.model_validate(body)
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Each wrong field and what is wrong with it, without pydantic's own jargon."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    )
