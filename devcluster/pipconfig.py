"""The machine's way to Python packages (index, proxy, certificates): an image build uses it and does not keep it."""

import configparser
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Where pip looks for the machine's configuration beside /etc/pip.conf; a folder of its own can be mounted whole.
_INSIDE = "/etc/xdg/pip"
# Where a build keeps what pip downloaded; mounted, so that the next build finds it and the image does not hold it.
CACHE = "/var/cache/pip"
# Paths of this machine mean nothing in an image: only what finds and fetches packages is handed on.
_HANDED_ON = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "proxy",
    "cert",
    "timeout",
    "retries",
)
_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Mount:
    """A folder of this machine that a build sees."""

    source: Path
    target: str
    options: str = "ro"


def mounts(folder: Path) -> list[Mount]:
    """Write pip's configuration for a build into the folder; returns what the build must see."""
    files = (
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        Path.home() / ".pip" / "pip.conf",
        Path.home() / ".config" / "pip" / "pip.conf",
        Path(os.environ.get("PIP_CONFIG_FILE", os.devnull)),
    )
    options = effective((file.read_text() for file in files if file.is_file()), os.environ)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if certificates := options.get("cert"):
        shutil.copy(certificates, folder / "certificates.pem")
        options["cert"] = f"{_INSIDE}/certificates.pem"
    written = configparser.RawConfigParser()
    written["global"] = options | {"cache-dir": CACHE}
    with (folder / "pip.conf").open("w") as file:
        written.write(file)
    local = [Path(link) for link in shlex.split(options.get("find-links", "")) if Path(link).is_dir()]
    return [Mount(folder, _INSIDE), *(Mount(link, str(link)) for link in local)]


def effective(files: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Options that are in force: files in rising order of precedence, then PIP_* variables."""
    options: dict[str, str] = {}
    for content in files:
        parser = configparser.RawConfigParser()
        parser.read_string(content)
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= dict(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            options[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    for variable in _CERTIFICATE_VARIABLES:
        if environment.get(variable):
            options.setdefault("cert", environment[variable])
    return {name: value for name, value in options.items() if name in _HANDED_ON}
