"""Whom to trust as a signer of content credentials is the user's choice: a trust list is a PEM file of certificates.

It has the authorities that vouch for signers, such as those that the C2PA publishes. They are not part of c2pa-python,
and nothing is fetched: without a list, every signer is unknown.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from bonaface.errors import UsageError
from bonaface.provenance.evidence import clean

VARIABLE = "BONAFACE_C2PA_TRUST"


@dataclass(frozen=True)
class TrustList:
    """Certificates of the authorities that vouch for signers: PEM text, and the file's name and date."""

    name: str
    date: str
    pem: str

    def __str__(self) -> str:
        return f"{self.name} of {self.date}"


def trust_list(path: str | None = None) -> TrustList | None:
    """The trust list at ``path``, else at BONAFACE_C2PA_TRUST, else None. Read once.

    Raises:
        UsageError: the file cannot be read, or is no list of certificates.
    """
    path = path or os.environ.get(VARIABLE)
    return _read_trust(path) if path else None


@lru_cache
def _read_trust(path: str) -> TrustList:
    hint = "give a PEM file with the certificates of authorities that you trust"
    try:
        pem = Path(path).read_text(encoding="ascii")
        changed = Path(path).stat().st_mtime
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (OSError, ValueError) as error:  # a wrong certificate is an SSLError, which is an OSError
        raise UsageError(
            f"cannot read the trust list {path}: {getattr(error, 'reason', None) or error}", hint
        ) from error
    return TrustList(clean(Path(path).name), f"{datetime.fromtimestamp(changed, UTC):%Y-%m-%d}", pem)
