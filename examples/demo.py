"""The main job, from nothing: a cluster, the chart, a RAGService, requests, a load check, and where to look next.

Each step says what it does and how long it took. A step that fails says why and names its log.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

EXAMPLES = Path(__file__).resolve().parent
ROOT = EXAMPLES.parent
LOGS = ROOT / "build" / "demo"
BIN = Path(sys.executable).parent

RESOURCE = "examples/faq.yaml"
QUESTION = EXAMPLES / "faq" / "request.json"
IMAGES = {
    "operator.image": "localhost/ragservice/operator:dev",
    "operator.serviceImage": "localhost/ragservice/service:dev",
    "operator.redisImage": "localhost/ragservice/base:dev",
}


class StepError(Exception):
    """A step could not be done; the message says why and where the log is."""


class Demo:
    """The steps, on the devcluster called `name`."""

    def __init__(self, name: str, duration: str) -> None:
        self.name, self.duration = name, duration
        self._steps = 0

    def run(self) -> None:
        """Every step in turn. Raises StepError at the first one that cannot be done."""
        with self.step("Install what a node needs: containerd, runc, buildah"):
            self.call("setup", "devcluster", "setup")
        with self.step("Compile Kubernetes and build the images (minutes once, cached after)"):
            self.build()
        with self.step("Start a cluster with one real node"):
            self.call("up", "devcluster", "up", "--nodes=1", f"--name={self.name}")
            built = self.call("load", "devcluster", "images", f"--name={self.name}")
        with self.step("helm install ragservice ."):
            self.install(build=re.findall(r"/operator-(\w+)\.tar", built)[-1])
        with self.step(f"kubectl apply -f {RESOURCE}"):
            self.kubectl("delete", "-f", RESOURCE, "--ignore-not-found")  # with replicas and cache of an earlier demo
            self.kubectl("apply", "-f", RESOURCE)
            self.kubectl("wait", "ragservice/faq", "--for=condition=Ready", "--timeout=180s")
        with self.step("Ask it to rank eight entries of the FAQ, twice"):
            self.ask()
        with self.step(f"Load: replicas follow what the SLO needs; the last {self.duration} count"):
            self.load()
        print(self.where_to_look())

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step and say how long it took."""
        self._steps += 1
        print(f"\n[{self._steps}] {title}", flush=True)
        began = time.monotonic()
        yield
        print(f"    done in {time.monotonic() - began:.1f} s", flush=True)

    def build(self) -> None:
        """Both at once: the compiler waits for the processor, the images mostly for the network."""
        with ThreadPoolExecutor() as pool:
            tasks = [
                pool.submit(self.call, "build", "devcluster", "build"),
                pool.submit(self.call, "images", "devcluster", "images", "--build-only"),
            ]
            for task in tasks:
                task.result()

    def install(self, build: str) -> None:
        """The chart, with the images that were built here; a new `build` under the same tag is a new pod."""
        self.with_cluster(
            "helm",
            *("helm", "upgrade", "--install", "ragservice", ".", "--namespace=ragservice-system", "--create-namespace"),
            *(f"--set={value}={image}" for value, image in IMAGES.items()),
            *(f"--set-string=operator.podAnnotations.build={build}", "--wait", "--timeout=120s"),
        )

    def ask(self) -> None:
        """One question twice: the second answer comes from the cache."""
        question = json.loads(QUESTION.read_text())
        print(f"    “{question['query']}”")
        with self.forwarded() as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            for source in ("computed", "from the cache"):
                began = time.monotonic()
                answer = client.post("/rerank", json=question)
                took = time.monotonic() - began
                if answer.status_code != 200:
                    raise StepError(f"POST /rerank was answered {answer.status_code}: {answer.text}")
                if source == "computed":
                    for place, rank in enumerate(answer.json()[:3], 1):
                        print(f"    {place}. {rank['score']:6.3f}  {rank['id']}")
                print(f"    {took * 1000:6.1f} ms, {source} (X-Cache: {answer.headers['X-Cache']})")

    @contextmanager
    def forwarded(self) -> Iterator[str]:
        """The URL at which this machine reaches the Service, for as long as the context lasts."""
        command = (*self.prefix, "kubectl", "port-forward", "service/faq", ":80")
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                said = process.stdout.readline()
                port = re.search(r"127\.0\.0\.1:(\d+)", said)
                if port is None:
                    raise StepError(f"kubectl port-forward said {said!r}")
                yield f"http://127.0.0.1:{port[1]}"
            finally:
                process.terminate()

    def load(self) -> None:
        """The load check from inside the cluster's network, live; its exit status is the verdict."""
        address = self.kubectl("get", "service/faq", "-o", "jsonpath={.spec.clusterIP}")
        check = (
            str(BIN / "rag-loadtest"),
            "run",
            "--resource=faq",
            "--namespace=default",
            f"--url=http://{address}",
            "--live",
        )
        limits = (
            "--warm-up=45s",
            f"--duration={self.duration}",
            "--corpus=examples/faq/corpus.yaml",
            "--json=build/demo/load.json",
        )
        inside = (str(BIN / "devcluster"), "exec", f"--name={self.name}", "--inside", "--")
        verdict = subprocess.run([*inside, *check, *limits], cwd=ROOT, check=False)
        if verdict.returncode:
            raise StepError(f"the load check did not pass (exit status {verdict.returncode}); see build/demo/load.json")

    def where_to_look(self) -> str:
        """What to try next, each a command that works as it stands."""
        shell = f".venv/bin/devcluster exec --name {self.name} --"
        return f"""
The cluster stays up. Look around:

  {shell} kubectl get rag -o wide
  {shell} kubectl describe rag faq
  {shell} kubectl explain rag.spec.slo
  {shell} kubectl logs -n ragservice-system deployment/ragservice-operator

`make demo-down` removes every trace of it.
"""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command starts with to have kubectl, helm and the cluster's kubeconfig."""
        return (str(BIN / "devcluster"), "exec", f"--name={self.name}", "--")

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl and return what it printed."""
        return self.with_cluster("kubectl", "kubectl", *arguments)

    def with_cluster(self, log: str, *command: str) -> str:
        """Run a command with kubectl and helm on its PATH."""
        return self.call(log, *self.prefix, *command)

    def call(self, log: str, program: str, *arguments: str) -> str:
        """Run one of our programs and return what it printed; all of it also goes to the log."""
        LOGS.mkdir(parents=True, exist_ok=True)
        file = LOGS / f"{log}.log"
        command = [program if "/" in program else str(BIN / program), *arguments]
        lines = []
        with (
            file.open("a") as out,
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                out.write(line)
                if log in {"setup", "build", "up", "images"}:
                    print(f"    {line}", end="", flush=True)
        if process.returncode:
            said = "".join(lines[-15:]).strip() or "nothing was printed"
            raise StepError(f"`{' '.join(command)}` exited with {process.returncode}:\n{said}\nThe whole log: {file}")
        return "".join(lines)


def main() -> int:
    """Run the demo: 0 when every step was done, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="demo", help="name of the devcluster")
    parser.add_argument("--duration", default="30s", help="how long the load counts, after it made the replicas go up")
    arguments = parser.parse_args()
    try:
        Demo(arguments.name, arguments.duration).run()
    except StepError as failure:
        print(f"\nThe demo stopped: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
