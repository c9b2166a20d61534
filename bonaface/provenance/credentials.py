"""Content credentials (C2PA): what a signed manifest says, and whether its signature is valid."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bonaface.imaging.containers import Container
from bonaface.provenance.evidence import Evidence, clean, source_type, text_of


def credentials(container: Container, mime: str) -> Iterator[Evidence]:
    """The active C2PA manifest, read by c2pa-python where it is installed; nothing is fetched for it.

    Anyone could have written a store without a valid signature: it is quoted, but not taken as a statement.
    """
    if not container.has_c2pa:
        return
    try:
        import c2pa  # noqa: F401
    except ImportError:
        text = "content credentials are present but not verified; `pip install c2pa-python` to read them"
        yield Evidence("unclear", "C2PA", text)
        return
    try:
        store = _manifest_store(container.image, mime)
        if not _is_valid(store) and container.end < len(container.data):
            whole = _manifest_store(container.data, mime)  # a phone may sign what it appends, too
            store = whole if _is_valid(whole) else store
    except Exception as error:  # the library's errors have no common base that survives its versions
        yield Evidence("unclear", "C2PA", clean(f"content credentials are present, but cannot be read ({error})"))
        return
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    maker = _maker(manifest)
    names = sorted(set(_declared_types(manifest.get("assertions"))))
    if not _is_valid(store):
        said = ", ".join(source_type(name)[2] for name in names) or "no statement of how it was made"
        yield Evidence(
            "unclear", "C2PA", clean(f"THE SIGNATURE IS NOT VALID; anyone could have written: {said}; by {maker}")
        )
        return
    issuer = text_of((manifest.get("signature_info") or {}).get("issuer")) or "an unnamed signer"
    trust = f"the signature is valid, in the name of {issuer} (the signer's identity was not checked)"
    for name in names or [""]:
        says, meaning = source_type(name)[1:] if name else ("unclear", "no statement of how it was made")
        yield Evidence(says, "C2PA", clean(f"{meaning}; by {maker}; {trust}"), verified=True)


def _manifest_store(data: bytes, mime: str) -> dict[str, Any]:
    import c2pa

    offline = c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    with offline, c2pa.Reader(mime, io.BytesIO(data), context=offline) as reader:
        return json.loads(reader.json())


def _is_valid(store: Mapping[str, Any]) -> bool:
    return store.get("validation_state") in ("Valid", "Trusted")


def _declared_types(assertions: Any) -> Iterator[str]:
    """The value of every digital source type in a manifest's assertions; prose that quotes one does not count."""
    if isinstance(assertions, dict):
        for key, value in assertions.items():
            if isinstance(value, str) and key.lower().endswith("digitalsourcetype"):
                yield value
            yield from _declared_types(value)
    elif isinstance(assertions, list):
        for value in assertions:
            yield from _declared_types(value)


def _maker(manifest: Mapping[str, Any]) -> str:
    """The program that made the claim: claim_generator_info of the newer form, else claim_generator."""
    infos = manifest.get("claim_generator_info") or []
    name = text_of(infos[0].get("name")) if infos and isinstance(infos[0], dict) else ""
    return name or text_of(manifest.get("claim_generator")) or "an unnamed program"
