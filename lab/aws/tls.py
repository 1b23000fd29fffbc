# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority of the lab's own, and server certificates signed by it."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)
SKEW = timedelta(days=1)  # clocks of hosts may be behind


@dataclass(frozen=True)
class Authority:
    """A CA in a folder: ca.crt is what clients trust, ca.key stays here."""

    folder: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Pair:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


def make_ca(folder: Path) -> Authority:
    """Make a certificate authority in the folder, or return the one that is there and valid for a day more."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder, folder / "ca.crt", folder / "ca.key")
    if authority.key.exists() and authority.certificate.exists():
        found = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
        if found.not_valid_after_utc > datetime.now(timezone.utc) + SKEW:
            return authority
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "evernat lab CA")])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(authority.key, key, authority.certificate, certificate)
    return authority


def make_cert(authority: Authority, names: Sequence[str], ips: Sequence[str] = (), label: str = "server") -> Pair:
    """A server certificate for these DNS names and addresses, as LABEL.crt and LABEL.key beside the CA's."""
    ca_key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    ca = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (list(names) + list(ips))[0][:64])])
    alternatives = x509.SubjectAlternativeName(
        [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    )
    certificate = (
        _builder(subject, ca.subject, key)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pair = Pair(authority.folder / f"{label}.crt", authority.folder / f"{label}.key")
    _write(pair.key, key, pair.certificate, certificate)
    return pair


def server_context(pair: Pair) -> ssl.SSLContext:
    """What Aws.listen wants as its tls."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _write(key_path: Path, key: ec.EllipticCurvePrivateKey, path: Path, certificate: x509.Certificate) -> None:
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
