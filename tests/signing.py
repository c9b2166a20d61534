"""Content credentials of a maker that we made up: signed with a key and an authority that live for one test."""

from __future__ import annotations

import datetime
import functools
import io
import json
from dataclasses import dataclass
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
CREATED = {"action": "c2pa.created", "digitalSourceType": TYPES + "trainedAlgorithmicMedia"}


@dataclass(frozen=True)
class Authority:
    """Its key, and its own certificate as PEM."""

    key: ec.EllipticCurvePrivateKey
    pem: bytes


def authority() -> Authority:
    """A new one, whose name is Root."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Authority(key, _certificate("Root", "Root", key, key))


@functools.cache
def some_authority() -> Authority:
    """That of tests to which it does not matter."""
    return authority()


def signed(data: bytes, *actions: dict[str, Any], by: Authority | None = None) -> bytes:
    """The JPEG with content credentials of the program FaceMaker, signed in the name of Generator Ltd."""
    manifest = {
        "claim_generator_info": [{"name": "FaceMaker", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [CREATED, *actions]}}],
    }
    return _signed(data, manifest, "Generator Ltd", by)


def resigned(parent: bytes, *actions: dict[str, Any]) -> bytes:
    """The JPEG opened by the program Editor, and signed again in the name of Editor Ltd, with what it found in it."""
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
    manifest = {
        "claim_generator_info": [{"name": "Editor", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [opened, *actions]}}],
    }
    return _signed(parent, manifest, "Editor Ltd", parent=parent)


def _signed(
    data: bytes, manifest: dict[str, Any], name: str, by: Authority | None = None, parent: bytes | None = None
) -> bytes:
    root, key = by or some_authority(), ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = _certificate(name, "Root", key, root.key) + root.pem
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=private, ta_url=None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
        if parent is not None:
            about = json.dumps({"title": "parent", "relationship": "parentOf", "instance_id": "parent"})
            builder.add_ingredient(about, "image/jpeg", io.BytesIO(parent))
        builder.sign(signer, "image/jpeg", io.BytesIO(data), out)
    return out.getvalue()


def _certificate(name: str, issuer: str, key: Any, signer: Any) -> bytes:
    """As C2PA 2.1, 14.5 wants it: an authority, or a signer's with the purpose of signing e-mail."""
    now, is_authority = datetime.datetime.now(datetime.UTC), name == issuer

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(oid, text) for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)])

    usage = x509.KeyUsage(True, False, False, False, False, is_authority, is_authority, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(usage, critical=True)
    )
    if not is_authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
