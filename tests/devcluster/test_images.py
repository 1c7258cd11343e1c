"""What an image is made of decides whether it is built again."""

import os
import subprocess
from pathlib import Path

import pytest

from devcluster import images, oci, pipconfig
from devcluster.errors import DevclusterError

DOCKERFILE = """
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
COPY requirements/one.txt pyproject.toml /src/   # both
RUN pip install -r /src/one.txt
COPY --chown=1:1 one \\
     two /src/
FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
ADD data.bin /data/
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "one" / "__pycache__").mkdir(parents=True)
    (tmp_path / "one" / "a.py").write_text("a")
    (tmp_path / "one" / "__pycache__" / "a.pyc").write_text("compiled")
    (tmp_path / "other.py").write_text("other")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def test_sources_are_the_copied_paths_of_the_build_context() -> None:
    assert images.copied_paths(DOCKERFILE) == ["requirements/one.txt", "pyproject.toml", "one", "two", "data.bin"]


def test_files_are_those_that_git_would_commit(project: Path) -> None:
    assert images.project_files(project, ["one"]) == [Path("one/a.py")]
    (project / "one" / "new.py").write_text("not yet added")
    assert images.project_files(project, ["one"]) == [Path("one/a.py"), Path("one/new.py")]


def test_the_key_follows_content_name_and_mode_but_not_time(project: Path) -> None:
    files = [Path("one/a.py")]
    key = images.content_key(project, files, "base")
    os.utime(project / "one" / "a.py", (0, 0))
    assert images.content_key(project, files, "base") == key
    assert images.content_key(project, files, "another base") != key
    (project / "one" / "a.py").chmod(0o755)
    executable = images.content_key(project, files, "base")
    assert executable != key
    (project / "one" / "a.py").write_text("b")
    assert images.content_key(project, files, "base") not in {key, executable}


def test_every_dockerfile_copies_what_exists() -> None:
    dockerfiles = sorted(images.PROJECT.glob("*/Dockerfile"))
    assert dockerfiles
    for dockerfile in dockerfiles:
        for path in images.copied_paths(dockerfile.read_text()):
            assert images.project_files(images.PROJECT, [path]), f"{dockerfile}: {path}"


def test_an_image_without_dockerfile_is_named(project: Path) -> None:
    with pytest.raises(DevclusterError, match=r"nothing/Dockerfile does not exist"):
        images.build(["nothing"], project)


def test_an_archive_tells_its_name_and_digest(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    oci.write_program_image(tmp_path / "one.tar", "localhost/one:dev", program)
    name, digest = images.manifest_digest(tmp_path / "one.tar")
    assert name == "localhost/one:dev"
    assert digest.startswith("sha256:")
    oci.write_program_image(tmp_path / "again.tar", "localhost/one:dev", program)
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "one.tar").read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a tar"])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(DevclusterError, match=r"bad\.tar is not an OCI archive of one named image"):
        images.manifest_digest(tmp_path / "bad.tar")


def test_pip_options_are_merged_as_pip_does() -> None:
    site = "[global]\nindex-url = http://site.invalid/simple\ntimeout = 5\n"
    user = "[install]\nindex-url = http://user.invalid/simple\n[global]\nbreak-system-packages = true\n"
    options = pipconfig.effective([site, user], {"PIP_TIMEOUT": "60", "PIP_REQUIRE_VIRTUALENV": "1"})
    assert options == {"index-url": "http://user.invalid/simple", "timeout": "60"}


def test_certificates_come_from_pips_option_before_general_variables() -> None:
    assert pipconfig.effective([], {"SSL_CERT_FILE": "/ssl.pem"}) == {"cert": "/ssl.pem"}
    assert pipconfig.effective([], {"SSL_CERT_FILE": "/ssl.pem", "PIP_CERT": "/pip.pem"}) == {"cert": "/pip.pem"}


def test_what_a_build_sees_of_pips_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "ca.pem").write_text("certificates")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path / 'wheels'} /not/there")
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "ca.pem"))
    mounts = pipconfig.mounts(tmp_path / "pip")
    assert [mount.source for mount in mounts] == [tmp_path / "pip", tmp_path / "wheels"]
    assert (tmp_path / "pip" / "certificates.pem").read_text() == "certificates"
    assert f"cert = {mounts[0].target}/certificates.pem" in (tmp_path / "pip" / "pip.conf").read_text()
