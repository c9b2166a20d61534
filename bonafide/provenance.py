"""What a file says about where it comes from: shown beside the score, never mixed into it.

Read are EXIF camera facts, the parameters that generators leave in PNG text and EXIF, XMP with the IPTC's
`digital source type <https://cv.iptc.org/newscodes/digitalsourcetype/>`_, and content credentials (C2PA). Metadata is
written by whoever wrote the file: it can be removed by any upload and forged in a minute. Missing metadata
proves nothing. All text comes from the file: it is cut to ``MAX_TEXT`` characters and freed of control characters, and
is for the caller to escape.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from PIL import ExifTags, Image

from bonafide.errors import UsageError
from bonafide.images import ImageError, open_image, read_bytes
from bonafide.inputs import as_utf8, find_inputs, printable

MAX_TEXT = 300  # characters of any text from the file
MAX_PARSED = 200_000  # characters of a text field that are looked at
NOTE = "Metadata can be removed or forged: where it is missing, nothing follows; where it is there, little does."

Says = Literal["camera", "generated", "edited", "unclear"]


@dataclass(frozen=True)
class Evidence:
    """One statement of the file about itself.

    Attributes:
        says: "camera", "generated", "edited" (parts may be generated) or "unclear".
        source: where it was found, e.g. "EXIF" or "PNG text `parameters`".
        text: what it says, untrusted, at most ``MAX_TEXT`` characters.
        verified: of content credentials alone: the signature is valid. Who signed is another question.
    """

    says: Says
    source: str
    text: str
    verified: bool = False


@dataclass(frozen=True)
class Provenance:
    """All statements of a file, and what they are worth."""

    evidence: tuple[Evidence, ...]
    note: str = NOTE

    def lines(self) -> list[str]:
        """For a person, untrusted text included: one line a statement, then the note."""
        said = [f"{item.says} ({item.source}): {item.text}" for item in self.evidence]
        return [*(said or ["The file says nothing about where it comes from."]), self.note]


def read_provenance(data: bytes, *, name: str = "") -> Provenance:
    """What the bytes of an image file say about its origin, without decoding a pixel.

    Broken metadata is passed over. Raises ImageError where there is no image; ``name`` serves its message.
    """
    found: list[Evidence] = []
    with open_image(data, name) as image:
        exif = _exif(image)
        texts = {**_png_texts(image), **_exif_texts(exif)}
        found += _camera(exif)
        mime = Image.MIME.get(str(image.format), "")
    for source, text in texts.items():
        found += _generator(source, text[:MAX_PARSED])
    found += _xmp(data)
    found += _credentials(data, mime)
    unique = dict.fromkeys(found)
    return Provenance(tuple(unique))


def run_provenance_command(paths: Sequence[str], as_json: bool = False) -> int:
    """``python -m bonafide provenance``: a panel a file, or a JSON object a line with ``path``, ``status``, ``error``,
    ``evidence`` and ``note``. 0, or 1 where not one file could be read. Raises UsageError where nothing is named."""
    warnings.filterwarnings("ignore", module="PIL")  # of broken metadata
    n_files = n_read = 0
    for path in find_inputs(paths):
        n_files += 1
        found, status, error = Provenance(()), "ok", None
        try:
            found = read_provenance(read_bytes(path), name=path)
            n_read += 1
        except ImageError as caught:
            status, error = caught.reason, str(caught)
        if as_json:
            facts = {"path": as_utf8(path), "status": status, "error": error and as_utf8(error)}
            print(json.dumps(facts | asdict(found)))
        else:
            print("\n".join(_panel(path, found, error)))
    if not n_files:
        raise UsageError("there is no image to look at", "name files, folders with images, patterns, or - for stdin")
    if not as_json:
        print(NOTE)
    return 0 if n_read else 1


def _panel(path: str, found: Provenance, error: str | None) -> list[str]:
    """A file's evidence in columns, for a terminal."""
    if error is not None:
        return [printable(path), f"  not readable: {printable(error)}", ""]
    if not found.evidence:
        return [printable(path), "  says nothing about where it comes from", ""]
    says, source = (max(len(getattr(item, name)) for item in found.evidence) for name in ("says", "source"))
    lines = [f"  {item.says:<{says}}  {item.source:<{source}}  {item.text}" for item in found.evidence]
    return [printable(path), *lines, ""]


# --- EXIF ---------------------------------------------------------------------------------------------------------


def _exif(image: Image.Image) -> dict[str, Any]:
    """Tags by name, those of the Exif block included; {} where it is broken."""
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # Pillow's EXIF parser raises what its input makes it raise
        return {}
    return {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in tags.items()}


def _camera(exif: Mapping[str, Any]) -> Iterator[Evidence]:
    make, model = _text(exif.get("Make")), _text(exif.get("Model"))
    taken = [name for name in ("ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength") if name in exif]
    if not (make or model):
        return
    name = model if model.startswith(make) else f"{make} {model}".strip()
    date = _text(exif.get("DateTimeOriginal"))
    settings = "with exposure settings" if taken else "without exposure settings, which cameras write"
    says: Says = "camera" if taken else "unclear"
    yield Evidence(says, "EXIF", _clean(f"{name}, {settings}" + (f", taken {date}" if date else "")))


def _exif_texts(exif: Mapping[str, Any]) -> dict[str, str]:
    names = ("ImageDescription", "UserComment", "Software", "Artist", "Make", "XPComment", "DocumentName")
    texts = {f"EXIF {name}": _text(exif.get(name)) for name in names}
    return {source: text for source, text in texts.items() if text}


# --- Generators ---------------------------------------------------------------------------------------------------

_NAMES = re.compile(
    r"\b(midjourney|stable[ -]?diffusion|comfyui|invokeai|novelai|dall[-·. ]?e\b|openai|chatgpt|adobe firefly|firefly"
    r"|imagen \d|gemini|nano banana|ideogram|leonardo\.ai|flux\.?1|fooocus|automatic1111|sd\.next|draw ?things"
    r"|dreamstudio|bing image creator|image creator|meta ai|grok|stylegan\d?|recraft|(made|edited) with google ai)",
    re.IGNORECASE,
)
_EDITORS = re.compile(
    r"\b(photoshop|lightroom|gimp|snapseed|facetune|faceapp|remini|meitu|beautyplus|facelab|topaz|luminar|canva)\b",
    re.IGNORECASE,
)
_PROGRAM_FIELD = re.compile(r"\b(software|source|generator|creatortool|credit|make|author|artist)\b", re.IGNORECASE)
_A1111 = re.compile(r"Steps: \d+, .*?(Sampler|CFG scale|Seed): ", re.DOTALL)
_MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}-|--(v|niji|ar|stylize) [\d.:]+")
# The field in which a program keeps its settings, whatever they are.
_OWN_FIELDS = {
    "sd-metadata": "InvokeAI",
    "invokeai_metadata": "InvokeAI",
    "dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "generation_data": "a generator",
}


def _png_texts(image: Image.Image) -> dict[str, str]:
    """Text chunks of a PNG in front of its pixels, where all known generators write them."""
    if image.format not in ("PNG", "GIF", "WEBP"):
        return {}
    skipped = ("XML:com.adobe.xmp", "xmp", "exif", "icc_profile")
    texts = {str(name): value for name, value in image.info.items() if name not in skipped}
    return {f"{image.format} text `{_clean(name)}`": _text(value) for name, value in texts.items() if _text(value)}


def _generator(source: str, text: str) -> Iterator[Evidence]:
    field = source.partition("`")[2].rstrip("`").lower()
    if _is_comfy(text):
        yield Evidence("generated", source, _clean(f"a ComfyUI graph: {text}"))
    elif _A1111.search(text):
        yield Evidence("generated", source, _clean(f"Stable Diffusion parameters: {text}"))
    elif field in _OWN_FIELDS:
        yield Evidence("generated", source, _clean(f"settings of {_OWN_FIELDS[field]}: {text}"))
    elif _MIDJOURNEY.search(text):
        yield Evidence("generated", source, _clean(f"a Midjourney prompt: {text}"))
    elif match := _NAMES.search(text):
        # A caption may speak of Gemini the telescope; a field for the program's name may not.
        says: Says = "generated" if _PROGRAM_FIELD.search(source) else "unclear"
        yield Evidence(says, source, _clean(f"names {match.group()}: {text}"))
    elif match := _EDITORS.search(text):
        yield Evidence("edited", source, _clean(f"names {match.group()}: {text}"))


def _is_comfy(text: str) -> bool:
    """ComfyUI's ``prompt`` is an object of nodes with a ``class_type``, its ``workflow`` one with a list of nodes."""
    if not text.lstrip().startswith("{"):
        return False
    head = text[:5000]
    return '"class_type"' in head or ('"nodes"' in text and '"last_node_id"' in head)


# --- XMP and the IPTC's digital source type -----------------------------------------------------------------------

_SOURCE_TYPES: dict[str, tuple[Says, str]] = {
    "trainedalgorithmicmedia": ("generated", "created by a trained model"),
    "algorithmicmedia": ("generated", "created by an algorithm"),
    "compositewithtrainedalgorithmicmedia": ("edited", "a composite with parts from a trained model"),
    "compositesynthetic": ("edited", "a composite with synthetic parts"),
    "algorithmicallyenhanced": ("edited", "enhanced by an algorithm"),
    "humanedits": ("edited", "edited by a person"),
    "minorhumanedits": ("edited", "small edits by a person"),
    "compositecapture": ("edited", "a composite of photographs"),
    "digitalcreation": ("edited", "drawn with software"),
    "digitalart": ("edited", "drawn with software"),
    "virtualrecording": ("generated", "recorded from a virtual scene"),
    "digitalcapture": ("camera", "taken with a digital camera"),
    "computationalcapture": ("camera", "taken with a digital camera, computed from several frames"),
    "negativefilm": ("camera", "scanned from a negative"),
    "positivefilm": ("camera", "scanned from a positive"),
    "print": ("camera", "scanned from a print"),
}
_TYPE_URI = re.compile(r"digitalsourcetype/(\w{3,60})", re.IGNORECASE)
_XMP_FIELDS = ("CreatorTool", "Credit", "Software", "description", "UserComment")


def _xmp(data: bytes) -> Iterator[Evidence]:
    """From the packet as it stands in the bytes: regular expressions, for an XML parser can be made to hang."""
    start = data.find(b"<x:xmpmeta")
    end = data.find(b"</x:xmpmeta>", start)
    if start < 0 or end < 0:
        return
    packet = data[start : min(end, start + MAX_PARSED)].decode("utf-8", "replace")
    for name in _TYPE_URI.findall(packet):
        says, meaning = _SOURCE_TYPES.get(name.lower(), ("unclear", "a source type that is not known here"))
        yield Evidence(says, "XMP digitalSourceType", _clean(f"{name}: {meaning}"))
    for field in _XMP_FIELDS:
        match = re.search(rf"\b{field}(?:=\"|>)([^\"<]{{1,2000}})", packet)
        if match:
            yield from _generator(f"XMP {field}", match.group(1))


# --- Content credentials ------------------------------------------------------------------------------------------


def _credentials(data: bytes, mime: str) -> Iterator[Evidence]:
    """The active C2PA manifest, read by c2pa-python where it is installed; nothing is fetched for it."""
    if b"jumb" not in data or b"c2pa" not in data:
        return
    try:
        import c2pa
    except ImportError:
        yield Evidence("unclear", "C2PA", "content credentials are there; `pip install c2pa-python` reads them")
        return
    try:
        offline = c2pa.Context.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
        with offline, c2pa.Reader(mime, io.BytesIO(data), context=offline) as reader:
            store = json.loads(reader.json())
    except Exception as error:  # the library's errors have no common base that survives its versions
        yield Evidence("unclear", "C2PA", _clean(f"content credentials are there, but cannot be read ({error})"))
        return
    manifest = store.get("manifests", {}).get(store.get("active_manifest"), {})
    valid = store.get("validation_state") in ("Valid", "Trusted")
    issuer = _text((manifest.get("signature_info") or {}).get("issuer")) or "an unnamed signer"
    maker = _maker(manifest)
    trust = "the signature is valid (whose it is was not checked)" if valid else "THE SIGNATURE IS NOT VALID"
    names = set(_TYPE_URI.findall(json.dumps(manifest)[:MAX_PARSED]))
    for name in sorted(names) or [""]:
        says, meaning = _SOURCE_TYPES.get(name.lower(), ("unclear", "no statement of how it was made"))
        yield Evidence(says, "C2PA", _clean(f"{meaning}; by {maker}, signed by {issuer}; {trust}"), valid)


def _maker(manifest: Mapping[str, Any]) -> str:
    """The program that made the claim: claim_generator_info of the newer form, else claim_generator."""
    infos = manifest.get("claim_generator_info") or []
    name = _text(infos[0].get("name")) if infos and isinstance(infos[0], dict) else ""
    return name or _text(manifest.get("claim_generator")) or "an unnamed program"


# --- Text ---------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """A text field in whatever form the file has it; "" for anything that is none."""
    if isinstance(value, bytes):
        value = _decoded(value)
    return str(value).strip("\0 \r\n\t") if isinstance(value, str) else ""


def _decoded(value: bytes) -> str:
    """EXIF 2.3, 4.6.5: UserComment starts with the name of its code; Windows' XP fields are UTF-16 LE."""
    if value[:8] == b"UNICODE\0":
        body = value[8:]
        big = body[:2] == b"\xfe\xff" or body[:1] == b"\0"
        return body.decode("utf-16-be" if big else "utf-16-le", "replace")
    if value[:8] in (b"ASCII\0\0\0", b"\0" * 8):
        value = value[8:]
    if value[1::2][:20].count(0) > 5:
        return value.decode("utf-16-le", "replace")
    return value.decode("utf-8", "replace")


def _clean(text: str) -> str:
    """One line without control or bidirectional characters, at most MAX_TEXT long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_TEXT])
    line = re.sub(r" +", " ", line).strip()
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


__all__ = ["NOTE", "Evidence", "ImageError", "Provenance", "read_provenance", "run_provenance_command"]
