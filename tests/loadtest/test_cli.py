"""Arguments that cannot be: each refused before any load, in words."""

import os
from pathlib import Path

import pytest
import yaml

os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"  # in this process gevent would get into the way of asyncio's tests
from rag_loadtest import cli
from rag_loadtest.errors import ConfigurationError

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*options: str) -> None:
    given = [f"--resource={EXAMPLES / 'faq.yaml'}", f"--corpus={EXAMPLES / 'faq' / 'corpus.yaml'}", *options]
    cli.run(cli.command_line().parse_args(["run", *given]), say=print)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--resource=nowhere.yaml", "cannot read nowhere.yaml"),
        ("--corpus=nowhere.yaml", "corpus nowhere.yaml: "),
        ("--corpus=README.md", "README.md: "),
        ("--url=127.0.0.1:8081", "'127.0.0.1:8081' is not an address such as http://127.0.0.1:8081"),
        ("--url=http://127.0.0.1:99999", "is not an address"),
        ("--url=", "say where it answers with --url"),
        ("--json=nowhere/report.json", "cannot write nowhere/report.json: nowhere is not a directory"),
        ("--users=1000000000", "1000000000 users need 1000000100 open files, the limit is "),
    ],
)
def test_what_cannot_be_is_refused(option: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run("--url=http://127.0.0.1:1", option)
    assert message in str(caught.value)


def test_a_corpus_smaller_than_a_request_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"documents": ["a", "b"], "queries": ["c"]}')
    with pytest.raises(ConfigurationError, match="needs 5 different documents, the corpus has 2"):
        run("--url=http://127.0.0.1:1", f"--corpus={tmp_path / 'corpus.json'}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--duration=60", "'60' is not a duration: write it as numbers with units"),
        ("--duration=0s", "must be longer than zero"),
        ("--users=0", "'0' is not a number from 1 up"),
        ("--users=few", "'few' is not a number from 1 up"),
        ("--frobnicate", "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_explained(option: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(option)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_job_among_the_examples_asks_for_what_there_is_and_mounts_what_it_reads() -> None:
    text = (EXAMPLES / "load-check-job.yaml").read_text()
    pod = yaml.safe_load(text)["spec"]["template"]["spec"]
    [container], [volume] = pod["containers"], pod["volumes"]
    arguments = cli.command_line().parse_args(container["args"])
    [mount] = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert f"create configmap {volume['configMap']['name']}" in text
    for file in (arguments.resource, str(arguments.corpus)):
        assert Path(file).parent == Path(mount["mountPath"])
        assert list(EXAMPLES.rglob(Path(file).name))
