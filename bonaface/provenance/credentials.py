"""Content credentials (C2PA): what a signed manifest says, whether its signature is valid, and whose it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from bonaface.imaging.containers import Container
from bonaface.provenance.evidence import Evidence, clean, source_type, text_of
from bonaface.provenance.trust import TrustList

Standing = Literal["signed and trusted", "signed by somebody unknown", "broken", "absent", "not read"]
MOST_ACTIONS = 12
MAX_STORE_BYTES = 16_000_000  # of all manifests, with their thumbnails
# What a `c2pa.actions` assertion says was done, in words; the first ones leave what can be seen alone.
_KEPT = {
    "c2pa.created": "created",
    "c2pa.opened": "opened",
    "c2pa.converted": "saved in another format",
    "c2pa.transcoded": "saved in another format",
    "c2pa.repackaged": "put into another file",
    "c2pa.published": "published",
    **dict.fromkeys(
        ("c2pa.watermarked", "c2pa.watermarked.bound", "c2pa.watermarked.unbound"),
        "given an invisible mark, which cannot be checked here",
    ),
}
_CHANGED = {
    "c2pa.edited": "edited",
    "c2pa.edited.metadata": "its metadata edited",
    "c2pa.cropped": "cropped",
    "c2pa.resized": "resized",
    "c2pa.resized.proportional": "resized",
    "c2pa.addedText": "text added",
    "c2pa.orientation": "rotated or mirrored",
    "c2pa.color_adjustments": "its colours adjusted",
    "c2pa.enhanced": "enhanced",
    "c2pa.adjustedColor": "its colours adjusted",
    "c2pa.drawing": "drawn on",
    "c2pa.filtered": "filtered",
    "c2pa.placed": "another image placed in it",
    "c2pa.removed": "a part removed",
    "c2pa.deleted": "a part removed",
    "c2pa.redacted": "a statement removed",
    "c2pa.unknown": "changed in an unknown way",
}


def credentials(container: Container, mime: str, trust: TrustList | None) -> tuple[Standing, list[Evidence]]:
    """The active C2PA manifest and those before it, read by c2pa-python where it is installed; nothing is fetched.

    Anyone could have written a store without a valid signature: it is quoted, but not taken as a statement.
    """
    if not container.has_c2pa:
        return "absent", []
    if container.c2pa_bytes > MAX_STORE_BYTES:
        text = f"content credentials of {container.c2pa_bytes:,} bytes are present, and not read: there are too many"
        return "not read", [Evidence("unclear", "C2PA", text)]
    try:
        import c2pa  # noqa: F401
    except ImportError:
        text = "content credentials are present but not verified; `pip install c2pa-python` to read them"
        return "not read", [Evidence("unclear", "C2PA", text)]
    try:
        store = _manifest_store(container.image, mime, trust)
        if not _is_valid(store) and container.end < len(container.data):
            whole = _manifest_store(container.data, mime, trust)  # a phone may sign what it appends, too
            store = whole if _is_valid(whole) else store
    except Exception as error:  # the library's errors have no common base that survives its versions
        text = f"content credentials are present, but cannot be read ({error})"
        return "broken", [Evidence("unclear", "C2PA", clean(text))]
    history = _history(store)
    if not _is_valid(store):
        return "broken", [Evidence("unclear", "C2PA", clean(_broken(history[-1])))]
    known = store.get("validation_state") == "Trusted"
    standing: Standing = "signed and trusted" if known else "signed by somebody unknown"
    return standing, list(_statements(history, trust if known else None))


def _history(store: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The manifests of the image, the active one last; before it, those of what it was made from, as far as valid.

    A chat program opens what its model made, and signs again: only the earlier manifest says that it was generated.
    """
    manifests, label = store.get("manifests") or {}, store.get("active_manifest")
    found: dict[Any, Mapping[str, Any]] = {}
    while label in manifests and label not in found:
        found[label] = manifests[label]
        parents = [item for item in manifests[label].get("ingredients") or [] if item.get("relationship") == "parentOf"]
        label = parents[0].get("active_manifest") if parents and _was_valid(parents[0]) else None
    return list(found.values())[::-1] or [{}]


def _was_valid(ingredient: Mapping[str, Any]) -> bool:
    """Whether its manifest was valid when the next one was signed; whose it was is another question."""
    results = (ingredient.get("validation_results") or {}).get("activeManifest")
    failures = results.get("failure") or [] if results else [{}]
    return all(failure.get("code") == "signingCredential.untrusted" for failure in failures)


def _statements(history: Sequence[Mapping[str, Any]], trusted_by: TrustList | None) -> Iterator[Evidence]:
    """How the image was made, and what was done to it, as a signer says whose signature is valid."""
    if trusted_by:
        trust = f"signed by {_issuer(history[-1])}, for whom the trust list {trusted_by} vouches"
    else:
        trust = f"the signature is valid, in the name of {_issuer(history[-1])}, but nobody known vouches for that name"
    said = [
        (manifest, name) for manifest in history for name in sorted(set(_declared_types(manifest.get("assertions"))))
    ]
    for manifest, name in said or [(history[-1], "")]:
        says, meaning = source_type(name)[1:] if name else ("unclear", "no statement of how it was made")
        earlier = "" if manifest is history[-1] else f"; stated before in the name of {_issuer(manifest)}"
        yield Evidence(says, "C2PA", clean(f"{meaning}; by {_maker(manifest)}{earlier}; {trust}"), verified=True)
    actions = [action for manifest in history for action in _actions(manifest.get("assertions"))]
    if [name for name, _ in actions] not in ([], ["c2pa.created"]):
        changed = any(name not in _KEPT for name, _ in actions)
        done = ", then ".join(words for _, words in actions[:MOST_ACTIONS])
        rest = f", and {len(actions) - MOST_ACTIONS} more" if len(actions) > MOST_ACTIONS else ""
        yield Evidence("edited" if changed else "unclear", "C2PA actions", clean(done + rest), verified=True)


def _issuer(manifest: Mapping[str, Any]) -> str:
    return text_of((manifest.get("signature_info") or {}).get("issuer")) or "an unnamed signer"


def _broken(manifest: Mapping[str, Any]) -> str:
    names = sorted(set(_declared_types(manifest.get("assertions"))))
    said = ", ".join(source_type(name)[2] for name in names) or "no statement of how it was made"
    return f"THE SIGNATURE IS NOT VALID; anyone could have written: {said}; by {_maker(manifest)}"


def _actions(assertions: Any) -> Iterator[tuple[str, str]]:
    """Each action's name, and the same in words with the program that did it, in order."""
    for assertion in assertions if isinstance(assertions, list) else []:
        data = assertion.get("data") if isinstance(assertion, dict) else None
        if not isinstance(data, dict) or not text_of(assertion.get("label")).startswith("c2pa.actions"):
            continue
        actions = data.get("actions")
        for action in actions if isinstance(actions, list) else []:
            name = text_of(action.get("action")) if isinstance(action, dict) else ""
            if not name:
                continue
            agent = action.get("softwareAgent")
            by = text_of(agent.get("name") if isinstance(agent, dict) else agent)
            words = _KEPT.get(name) or _CHANGED.get(name) or f"changed by `{name}`"
            yield name, f"{words} ({by})" if by else words


def _manifest_store(data: bytes, mime: str, trust: TrustList | None) -> dict[str, Any]:
    import c2pa

    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
    if trust:
        settings["trust"] = {"user_anchors": trust.pem}
    offline = c2pa.Context.from_dict(settings)
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
