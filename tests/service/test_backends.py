"""Every backend that is installed, on tiny models: the same scores as the others, and the same in any company."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from rag_service.contract.settings import BackendName, FidelityGate
from rag_service.engine import backends, host, rankers, trial, verdicts
from rag_service.engine.backends import REFERENCE, Variant
from rag_service.engine.backends.openvino import parts
from rag_service.engine.choice import Measurement
from rag_service.engine.pending import padded
from rag_service.engine.rankers import Ranker
from rag_service.engine.tokens import Tokens
from rag_service.models import ModelError, manifest, quantise
from rag_service.models.manifest import GRAPH, SOURCE, TOKENIZER, Graph, Manifest, digest
from rag_service.models.prepare import prepare
from tests import models
from tests.service.running import ServiceProcess

VARIANTS = [
    REFERENCE,
    Variant("onnxruntime", "int8"),
    Variant("openvino", "fp32"),
    Variant("openvino", "bf16"),
    Variant("openvino", "int8"),
    Variant("sentence-transformers", "fp32"),
    Variant("sentence-transformers", "bf16"),
]
VARIANTS = [one for one in VARIANTS if one.precision != "bf16" or host.read().bf16]
AGREES = {"fp32": 1 - 1e-9, "bf16": 0.99, "int8": 0.9}  # correlation; random weights suffer more than trained ones

pytestmark = pytest.mark.process  # the quantiser takes seconds to import, and a trial is a process

WORDS = ["how", "do", "we", "ship", "a", "parcel", "no", "yes"]


@pytest.fixture(scope="module", params=["cross-encoder", "bi-encoder"])
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with graphs in fp32 and int8, and the published files."""
    from rag_service.engine.tokens import Tokeniser

    root = tmp_path_factory.mktemp("model")
    make = models.cross_encoder if request.param == "cross-encoder" else models.bi_encoder
    source, out = make(root / "source", seed=5), root / "prepared"
    made = prepare(f"file://{source}", out)
    tokeniser = Tokeniser(out / TOKENIZER, made.recipe.max_tokens)
    quantise.quantise(out / GRAPH, tokeniser, made.recipe.kind, out / "int8.onnx", "nothing")
    int8 = Graph(file="int8.onnx", digest=digest(out / "int8.onnx"), maker="a test")
    made = made.model_copy(update={"graphs": {**made.graphs, "int8": int8}})
    (out / manifest.FILE).write_text(made.model_dump_json(by_alias=True))
    if not (out / SOURCE).exists():
        source.rename(out / SOURCE)
    return out


def load(directory: Path, variant: Variant, threads: int = 1) -> Ranker:
    found = manifest.read(directory)
    assert found
    return rankers.load(directory, found, variant, threads)


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    wanted: Variant = request.param
    if wanted.backend == "sentence-transformers":
        pytest.importorskip("sentence_transformers", reason="torch takes gigabytes")
    return wanted


def texts(count: int, seed: int = 1) -> list[str]:
    random = Random(seed)
    return [" ".join(random.choices(WORDS, k=random.randint(1, 25))) for _ in range(count)]


def inputs(ranker: Ranker, count: int = 24) -> list[Tokens]:
    return ranker.encode("where is my parcel", texts(count))


def alone(ranker: Ranker, given: list[Tokens]) -> list[NDArray[np.float32]]:
    return [ranker.backend.run([one], padded(len(one.ids), 128))[0] for one in given]


def together(ranker: Ranker, given: list[Tokens], order: list[int], size: int) -> list[NDArray[np.float32]]:
    """Rows of inputs that run in this order, as many of one length together as `size` allows."""
    rows: dict[int, NDArray[np.float32]] = {}
    for length in {padded(len(one.ids), 128) for one in given}:
        numbers = [number for number in order if padded(len(given[number].ids), 128) == length]
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            found = ranker.backend.run([given[number] for number in batch], length)
            assert found.dtype == np.float32
            rows.update(zip(batch, found, strict=True))
    return [rows[number] for number in range(len(given))]


def same(left: list[NDArray[np.float32]], right: list[NDArray[np.float32]]) -> bool:
    return np.array_equal(np.array(left), np.array(right))


def test_a_row_is_the_same_in_any_batch(prepared: Path, variant: Variant) -> None:
    ranker = load(prepared, variant)
    given = inputs(ranker, 40)
    expected = alone(ranker, given)
    for size in (2, 3, 7, 40):
        assert same(together(ranker, given, Random(size).sample(range(len(given)), len(given)), size), expected)


def test_and_on_any_thread(prepared: Path, variant: Variant) -> None:
    ranker = load(prepared, variant, threads=3)
    given = inputs(ranker)
    expected = alone(ranker, given)
    found: list[list[NDArray[np.float32]]] = []
    threads = [
        threading.Thread(target=lambda size=size: found.append(together(ranker, given, list(range(len(given))), size)))
        for size in (1, 4, 5, 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == len(threads)
    assert all(same(one, expected) for one in found)


IN_ANOTHER = """
import json, sys
from pathlib import Path
from rag_service.engine import rankers
from rag_service.engine.backends import Variant
from rag_service.models import manifest
directory, backend, precision, documents = sys.argv[1:]
ranker = rankers.load(Path(directory), manifest.read(Path(directory)), Variant(backend, precision), 2)
given = ranker.encode("where is my parcel", json.loads(documents))
print(json.dumps([ranker.backend.run([one], len(one.ids))[0].tolist() for one in given]))
"""


def test_and_in_another_process(prepared: Path, variant: Variant) -> None:
    ranker = load(prepared, variant)
    documents = texts(6)
    command = [sys.executable, "-c", IN_ANOTHER, str(prepared), *variant, json.dumps(documents)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    given = ranker.encode("where is my parcel", documents)
    assert told == [ranker.backend.run([one], len(one.ids))[0].tolist() for one in given]


def test_it_agrees_with_the_reference(prepared: Path, variant: Variant) -> None:
    ranker, reference = load(prepared, variant), load(prepared, REFERENCE)
    documents = texts(60)
    scores, exact = (
        np.array(one.scores(np.stack(alone(one, one.encode("where is my parcel", documents)))))
        for one in (ranker, reference)
    )
    assert np.corrcoef(scores, exact)[0, 1] >= AGREES[variant.precision]


def test_scores_are_named_by_what_they_depend_on(prepared: Path) -> None:
    """The fp32 scores of two backends are the same scores; what rounds more, each backend rounds in its own way."""
    names = {
        variant: load(prepared, variant).fingerprint
        for variant in VARIANTS
        if variant.backend != "sentence-transformers"
    }
    assert names[REFERENCE] == names[Variant("openvino", "fp32")]
    rounded = {name for variant, name in names.items() if variant.precision != "fp32"}
    assert len(rounded) == sum(variant.precision != "fp32" for variant in names)
    assert names[REFERENCE] not in rounded


def test_openvino_runs_batches_of_few_sizes() -> None:
    batch = [Tokens([number], [0]) for number in range(23)]
    for base, sizes in ((2, [16, 4, 2, 1]), (4, [16, 4, 1, 1, 1])):
        split = list(parts(batch, base))
        assert [len(part) for part in split] == sizes
        assert [one for part in split for one in part] == batch


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a graph in fp32."""
    root = tmp_path_factory.mktemp("sound")
    prepare(f"file://{models.cross_encoder(root / 'source', seed=7)}", root / "prepared")
    return root / "prepared"


def copied(directory: Path, to: Path) -> Path:
    to.mkdir()
    for file in directory.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("content", [b"", b"no graph", None], ids=["empty", "nonsense", "half"])
def test_a_broken_graph_is_one_clear_line(
    sound: Path, tmp_path: Path, backend: BackendName, content: bytes | None
) -> None:
    broken = copied(sound, tmp_path / "broken")
    graph = broken / GRAPH
    graph.write_bytes(graph.read_bytes()[:5000] if content is None else content)
    with pytest.raises(ModelError) as raised:
        load(broken, Variant(backend, "fp32"))
    message = str(raised.value)
    assert message.startswith(f"{graph} cannot be loaded: ")
    assert "\n" not in message
    assert len(message) > len(f"{graph} cannot be loaded: ") + 10


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (Variant("onnxruntime", "int8"), "there is no int8 graph in"),
        (Variant("openvino", "int8"), "there is no int8 graph in"),
        (Variant("onnxruntime", "bf16"), "onnxruntime has no bf16"),
    ],
)
def test_what_a_backend_cannot_run_is_said(sound: Path, variant: Variant, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(sound, variant)


def test_a_backend_that_is_not_installed_is_named(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.LIBRARIES, "openvino", backends.LIBRARIES["openvino"]._replace(package="no_such"))
    with pytest.raises(ModelError, match=r"backend openvino is not installed: install ragservice\[openvino\]"):
        load(sound, Variant("openvino", "fp32"))


SILENT = """
import os, socket, sys
from pathlib import Path
calls = []
watched = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn"}
sys.addaudithook(lambda event, args: calls.append((event, args)) if event in watched else None)
from rag_service.engine import rankers
from rag_service.engine.backends import Variant
from rag_service.models import manifest
directory, backend = sys.argv[1:]
rankers.load(Path(directory), manifest.read(Path(directory)), Variant(backend, "fp32"), 1)
import threading
print([name.name for name in threading.enumerate()], calls)
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_nothing_is_reported_to_the_makers_of_a_backend(sound: Path, tmp_path: Path, backend: str) -> None:
    """Nothing is written into HOME, no process is started, no connection opened."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", SILENT, str(sound), backend]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "['MainThread'] []\n"
    assert list(home.rglob("*")) == []


def test_a_trial_measures_in_a_process_of_its_own(sound: Path) -> None:
    measured = trial.run(sound, REFERENCE)
    assert isinstance(measured, Measurement)
    assert (len(measured.scores), len(measured.scores[0])) == (trial.QUERIES, trial.DOCUMENTS)
    assert measured.again == measured.scores[: trial.AGAIN]
    assert measured.speed > 0


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets the process of a trial run some code first."""

    def run(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(
            f"import os, sys\nif {trial.__name__!r} in sys.orig_argv:\n    {code}\n"
        )

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return run


@pytest.mark.parametrize(
    ("code", "limit", "outcome"),
    [
        ("os.kill(os.getpid(), 4)", 60, "died of SIGILL"),
        ("os.kill(os.getpid(), 9)", 60, "died of SIGKILL, for lack of memory it seems"),
        ("import time; time.sleep(600)", 1, "gave no result within 1 s"),
        ("os._exit(3)", 60, "ended with 3"),
        ("os.write(1, b'{}'); os._exit(0)", 60, "gave something that is no measurement"),
        ("os.write(2, b'one\\nthe last word\\n'); os._exit(1)", 60, "the last word"),
    ],
)
def test_a_trial_that_goes_wrong_says_how(
    sound: Path, child: Callable[[str], None], code: str, limit: float, outcome: str
) -> None:
    child(code)
    assert trial.run(sound, REFERENCE, limit) == outcome


@pytest.mark.parametrize("variant", [REFERENCE, Variant("openvino", "fp32")], ids=str)
def test_a_trial_without_memory_says_so(sound: Path, child: Callable[[str], None], variant: Variant) -> None:
    child("from rag_service.engine import host; host.free_memory = lambda: 1_000_000")
    outcome = trial.run(sound, variant)
    assert isinstance(outcome, str)
    assert "memory" in outcome or "failed to map" in outcome  # whichever part of the library is refused first


def test_a_trial_of_a_broken_graph_says_what_is_wrong(sound: Path, tmp_path: Path) -> None:
    broken = copied(sound, tmp_path / "broken")
    (broken / GRAPH).write_bytes(b"no graph")
    outcome = trial.run(broken, REFERENCE)
    assert isinstance(outcome, str)
    assert outcome.startswith(f"{broken / GRAPH} cannot be loaded: ")


def read(directory: Path) -> Manifest:
    found = manifest.read(directory)
    assert found
    return found


def test_the_verdict_is_kept_with_the_model(
    sound: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copied(sound, tmp_path / "model")
    caplog.set_level("INFO")
    served = verdicts.choose(model, read(model), FidelityGate())
    assert f"{served} serves\nvariant " in caplog.text
    assert "openvino int8                       -      -      -        -  there is no int8 graph" in caplog.text
    (kept,) = (model / verdicts.FOLDER).glob("*.json")
    before = kept.read_bytes()
    monkeypatch.setattr(trial, "run", lambda *_: pytest.fail("it is known already"))
    assert verdicts.choose(model, read(model), FidelityGate()) == served
    # What settings allow is chosen from the same verdict.
    assert verdicts.choose(model, read(model), FidelityGate(), backend="onnxruntime") == REFERENCE
    assert verdicts.choose(model, read(model), FidelityGate(), backend="openvino").backend == "openvino"
    assert kept.read_bytes() == before


def test_a_verdict_that_cannot_be_read_is_made_anew(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copied(sound, tmp_path / "model")
    good = trial.run(model, REFERENCE)
    monkeypatch.setattr(trial, "run", lambda directory, variant: good if variant == REFERENCE else "died")
    assert verdicts.choose(model, read(model), FidelityGate()) == REFERENCE
    (kept,) = (model / verdicts.FOLDER).glob("*.json")
    for content in (b"", b"{}", b'{"rows": []}', b'{"rows": [{"variant": ["onnxruntime", "fp64"]}]}'):
        kept.write_bytes(content)
        assert verdicts.choose(model, read(model), FidelityGate()) == REFERENCE
        assert json.loads(kept.read_bytes())["rows"][0]["variant"] == list(REFERENCE)


def test_a_verdict_for_lack_of_time_or_memory_is_not_kept(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copied(sound, tmp_path / "model")
    good = trial.run(model, REFERENCE)
    for fault, kept in ((trial.PassingFault("gave no result within 120 s"), 0), ("died of SIGILL", 1)):
        monkeypatch.setattr(trial, "run", lambda _, variant, fault=fault: good if variant == REFERENCE else fault)
        assert verdicts.choose(model, read(model), FidelityGate()) == REFERENCE
        assert len(list((model / verdicts.FOLDER).glob("*.json"))) == kept


def test_where_no_trial_comes_to_an_end_the_reference_serves(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = copied(sound, tmp_path / "model")
    monkeypatch.setattr(trial, "run", lambda *_: "died of SIGILL")
    assert verdicts.choose(model, read(model), FidelityGate()) == REFERENCE
    assert "no trial came to an end, so onnxruntime fp32 serves: onnxruntime fp32: died of SIGILL;" in caplog.text
    assert not list((model / verdicts.FOLDER).glob("*.json"))
    with pytest.raises(ModelError, match=r"no trial came to an end: .*openvino fp32: died of SIG"):
        verdicts.choose(model, read(model), FidelityGate(), backend="openvino")


def test_what_settings_name_is_not_tried(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "run", lambda *_: pytest.fail("there is nothing to find out"))
    assert verdicts.choose(sound, read(sound), FidelityGate(), "onnxruntime", "fp32") == REFERENCE
    assert verdicts.choose(sound, read(sound), FidelityGate(), "openvino", "fp32") == ("openvino", "fp32")
    with pytest.raises(ModelError, match=r"file://\S+: nothing can run it: openvino int8: there is no int8 graph"):
        verdicts.choose(sound, read(sound), FidelityGate(), "openvino", "int8")


def test_a_service_finds_out_what_serves_and_says_so(sound: Path, tmp_path: Path) -> None:
    model = copied(sound, tmp_path / "model")
    process = ServiceProcess(tmp_path, {"m": f"file://{model}"})
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"backend": "onnxruntime", "precision": "fp32"', '"backend": "auto"'))
    for said in (b"trying onnxruntime fp32, openvino fp32", b"a trial on such a CPU has been made before"):
        with process as service:
            told = service.client.get("/metrics").text
            assert service.scores("query", ["a document"])
        assert said in (tmp_path / "service.log").read_bytes()
        (info,) = (line for line in told.splitlines() if line.startswith("ragservice_model_info{"))
        served = verdicts.choose(model, read(model), FidelityGate())
        assert f'backend="{served.backend}"' in info
        assert f'precision="{served.precision}"' in info
        assert f'fingerprint="{read(model).fingerprint(served.precision, served.backend)}"' in info


INTEL = """processor\t: 0
model name\t: Some CPU @ 2 GHz
flags\t\t: fpu avx2 avx512_bf16 amx_int8 sse4_2 vmx

processor\t: 1
model name\t: Another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


def test_a_cpu_is_known_by_its_name_and_its_arithmetic() -> None:
    assert host.read(INTEL).cpu.removesuffix(" GPU") == "Some CPU @ 2 GHz amx_int8 avx2 avx512_bf16 sse4_2"
    assert host.read(INTEL).bf16
    assert not host.read(INTEL.replace("avx512_bf16", "avx512f")).bf16
    assert host.read(ARM).cpu.removesuffix(" GPU") == "0x41 0xd40 asimd bf16 i8mm sve"
    assert host.read(ARM).bf16
    assert host.read("").cpu.removesuffix(" GPU") == ""


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000", "memory.current": "900", "memory.stat": "anon 1\ninactive_file 300\n"}, 400),
        ({"memory.max": "1000", "memory.current": "1100", "memory.stat": ""}, 0),
        ({"memory.max": "max", "memory.current": "900"}, None),
        (
            {
                "memory/memory.limit_in_bytes": "1000",
                "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100",
            },
            600,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "500"}, None),
        ({}, None),
    ],
)
def test_the_memory_that_a_container_has_left(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert host.free_memory(tmp_path) == free
