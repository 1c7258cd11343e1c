"""Images install exactly what was tested, from whatever index the machine uses."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "requirements"


def pins(name: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9][a-z0-9._-]*==\S+", (FOLDER / f"{name}.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("image", ["operator", "service", "quantize", "loadtest"])
def test_an_image_installs_what_the_tests_use(image: str) -> None:
    assert pins(image)
    assert pins(image) - pins("dev") == set()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_every_pin_has_a_hash_and_no_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    requirements = [
        line for line in text.replace("\\\n", " ").splitlines() if line and line.lstrip()[:1] not in {"", "#"}
    ]
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []
