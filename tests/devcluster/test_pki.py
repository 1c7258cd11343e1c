"""Certificates: who they speak for, when they are renewed, and what a renewal keeps."""

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from devcluster import controlplane, nodecomponents, pki

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
SERVER = pki.Identity("server", "server", hosts=("127.0.0.1", "localhost"))
CLIENT = pki.Identity("client", "someone", "system:masters")
PROXY = pki.Identity("proxy", "proxy", authority=pki.FRONT_PROXY_CA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.ensure(tmp_path / "pki", [SERVER, CLIENT, PROXY], NOW)
    return tmp_path / "pki"


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_certificate_is_signed_by_its_own_authority(folder: Path) -> None:
    for name, authority in {"server": "ca", "client": "ca", "proxy": "front-proxy-ca"}.items():
        certificate(folder, name).verify_directly_issued_by(certificate(folder, authority))


def test_user_and_group_stand_where_kubernetes_reads_them(folder: Path) -> None:
    subject = certificate(folder, "client").subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "someone"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:masters"


def test_keys_are_readable_by_their_owner_only(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.key")} == {0o600}


def test_valid_certificates_are_left_alone(folder: Path) -> None:
    before = content(folder)
    pki.ensure(folder, [SERVER, CLIENT, PROXY], NOW + datetime.timedelta(days=300))
    assert content(folder) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "client.crt").unlink(),
        lambda folder: (folder / "ca.crt").write_text("not a certificate"),
    ],
)
def test_a_damaged_folder_is_renewed(folder: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(folder)
    pki.ensure(folder, [SERVER, CLIENT, PROXY], NOW)
    certificate(folder, "client").verify_directly_issued_by(certificate(folder, "ca"))


def test_a_renewal_before_expiry_keeps_the_key_that_signed_the_pods_tokens(folder: Path) -> None:
    before = content(folder)
    later = NOW + datetime.timedelta(days=340)
    pki.ensure(folder, [SERVER, CLIENT, PROXY], later)
    after = content(folder)
    assert after["service-account.key"] == before["service-account.key"]
    assert after["client.crt"] != before["client.crt"]
    assert certificate(folder, "client").not_valid_after_utc > later + datetime.timedelta(days=300)


def test_another_address_means_new_certificates(folder: Path) -> None:
    moved = pki.Identity("server", "server", hosts=("127.0.0.1", "10.0.0.1"))
    pki.ensure(folder, [moved, CLIENT, PROXY], NOW)
    names = certificate(folder, "server").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == {"127.0.0.1", "10.0.0.1"}


def test_no_two_identities_of_a_cluster_share_files() -> None:
    names = [identity.name for identity in controlplane.IDENTITIES + nodecomponents.IDENTITIES]
    assert len(names) == len(set(names))
    assert set(controlplane.KUBECONFIGS + nodecomponents.KUBECONFIGS) <= set(names)
