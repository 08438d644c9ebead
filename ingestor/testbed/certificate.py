"""A certificate made on the spot, for venues that are served on this machine."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS: Final = 30


def make_certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """Make a key and a certificate that it signs itself.

    Args:
        folder: where the certificate is written, as `certificate.pem`; the key is removed again.
        host: an address that it is for, beside localhost, 127.0.0.1 and ::1.

    Returns:
        The server's context, and the file that clients must trust.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    path, secret = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(_signed(key, host).public_bytes(serialization.Encoding.PEM))
    secret.touch(mode=0o600)
    try:
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, secret)
    finally:
        secret.unlink()
    return context, path


def _signed(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ingestor serve")])
    now = dt.datetime.now(dt.UTC)
    hosts = [
        _general_name(fromkey) for fromkey in dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
    ]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=False, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
