"""An authority and certificates for 127.0.0.1, made for one run of the tests."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


class Pem(NamedTuple):
    """Paths. `both`: key and certificate in one file, as Java takes them."""

    ca: Path
    cert: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; its own is in `folder`/NAME.pem."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"headrace test {name}")
        self.pem = folder / f"{name}.pem"
        now = datetime.datetime.now(datetime.timezone.utc)
        built = (x509.CertificateBuilder().subject_name(self._name).issuer_name(self._name).public_key(self._key.public_key())
                 .serial_number(x509.random_serial_number()).not_valid_before(now - 30 * DAY).not_valid_after(now + DAY)
                 .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
                 .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
                 .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
                 .sign(self._key, hashes.SHA256()))
        self.pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))

    def signed(self, name: str, valid: datetime.timedelta = DAY) -> Pem:
        """A certificate of 127.0.0.1 and localhost, which ends `valid` from now: below zero it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.timezone.utc)
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        built = (x509.CertificateBuilder().subject_name(_named(name)).issuer_name(self._name).public_key(key.public_key())
                 .serial_number(x509.random_serial_number()).not_valid_before(now - 20 * DAY).not_valid_after(now + valid)
                 .add_extension(x509.SubjectAlternativeName(names), False)
                 .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
                 .sign(self._key, hashes.SHA256()))
        cert, keyed, both = (self._folder / f"{name}{end}.pem" for end in ("", "-key", "-both"))
        cert.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        keyed.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        both.write_bytes(keyed.read_bytes() + cert.read_bytes())
        return Pem(self.pem, cert, keyed, both)


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
