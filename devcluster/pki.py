"""The cluster's certificates: two authorities, one certificate an identity, one key for service account tokens."""

import datetime
import ipaddress
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLUSTER_CA = "ca"
# Signs only the API server's own requests to extension servers (metrics-server): a separate authority, because
# those servers believe the user name in the headers of whoever shows a certificate of it.
FRONT_PROXY_CA = "front-proxy-ca"
_LIFETIME = datetime.timedelta(days=365)
_RENEW_BEFORE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Identity:
    """Who a certificate speaks for: Kubernetes reads user and groups from common name and organization."""

    name: str
    """Name of the certificate's files."""
    common_name: str
    organization: str = ""
    hosts: tuple[str, ...] = ()
    """Addresses and DNS names it serves; none for a pure client."""
    authority: str = CLUSTER_CA


def ensure(folder: Path, identities: Sequence[Identity], now: datetime.datetime) -> None:
    """Make the folder hold valid certificates for all identities; renew all of them together when one is due.

    The service account key is kept over a renewal, so that the tokens in running pods stay valid.
    """
    if _is_valid(folder, identities, now):
        return
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    authorities = {name: _Authority(unfinished, name, now) for name in (CLUSTER_CA, FRONT_PROXY_CA)}
    for identity in identities:
        authorities[identity.authority].issue(identity, now)
    if (folder / "service-account.key").exists():
        for name in ("service-account.key", "service-account.pub"):
            shutil.copy(folder / name, unfinished / name)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        _save_key(unfinished / "service-account.key", key)
        (unfinished / "service-account.pub").write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _is_valid(folder: Path, identities: Iterable[Identity], now: datetime.datetime) -> bool:
    names = [CLUSTER_CA, FRONT_PROXY_CA, *(identity.name for identity in identities)]
    try:
        certificates = [x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes()) for name in names]
    except (OSError, ValueError):
        return False
    hosts = {identity.name: set(identity.hosts) for identity in identities}
    return all(
        certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE
        and _hosts(certificate) == hosts.get(name, set())
        for name, certificate in zip(names, certificates, strict=True)
    )


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


class _Authority:
    def __init__(self, folder: Path, name: str, now: datetime.datetime) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"devcluster {name}")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        builder = (
            _builder(self._name, self._name, self._key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        )
        _save(folder, name, self._key, builder.sign(self._key, hashes.SHA256()))

    def issue(self, identity: Identity, now: datetime.datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
        if identity.organization:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organization))
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if identity.hosts else [])]
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(x509.Name(attributes), self._name, key.public_key(), now)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(authority, critical=False)
        )
        if identity.hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in identity.hosts])
            builder = builder.add_extension(names, critical=False)
        _save(self._folder, identity.name, key, builder.sign(self._key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks that differ by a little must not refuse a new certificate.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _save(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _save_key(folder / f"{name}.key", key)
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _save_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
