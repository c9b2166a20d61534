"""What a file says about where it comes from: shown beside the score, never mixed into it.

Read are EXIF camera facts, the parameters that generators leave in PNG text and EXIF, IPTC fields, XMP with the IPTC's
`digital source type <https://cv.iptc.org/newscodes/digitalsourcetype/>`_, and content credentials (C2PA), each only
where the file's format keeps it: what is found elsewhere, or behind the end of the image, does not count.
Metadata is written by whoever wrote the file: any upload can remove it, and anyone can forge it. Missing metadata
proves nothing. All text comes from the file: it is cut to ``MAX_TEXT`` characters and freed of control characters, and
is for the caller to escape.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from bonaface.errors import UsageError
from bonaface.imaging.containers import Container, read_container
from bonaface.imaging.content import content_kind
from bonaface.imaging.images import ImageError, open_image, read_bytes, shown_name
from bonaface.imaging.inputs import as_utf8, find_inputs, printable
from bonaface.provenance.credentials import Standing, credentials
from bonaface.provenance.evidence import (
    MAX_PARSED,
    MAX_PARSED_TOGETHER,
    MAX_STATEMENTS,
    Evidence,
    Says,
    clean,
    source_type,
    text_of,
)
from bonaface.provenance.trust import TrustList, trust_list
from bonaface.provenance.xmp import IPTC_EXTENSION, gif_xmp, xmp_fields

NOTE = (
    "Metadata can be removed or forged: its absence proves nothing, and its presence little. Invisible marks, such as "
    "Google's SynthID, cannot be checked here."
)


@dataclass(frozen=True)
class Provenance:
    """All statements of a file, and what was not read.

    Attributes:
        credentials: what there is of content credentials (C2PA): "signed and trusted", "signed by somebody unknown",
            "broken" or "absent"; "not read" where the library that reads them is missing.
        trailing: bytes behind the end of the image, with their type if known; "" where there are none. They are often
            harmless (a second image, a motion photo's video), anyone can append them, and they state nothing.
    """

    evidence: tuple[Evidence, ...]
    note: str = NOTE
    trailing: str = ""
    credentials: Standing = "absent"

    def lines(self) -> list[str]:
        """For a person, untrusted text included: one line per statement, the trailing bytes if any, then the note."""
        said = [f"{item.says} ({item.source}): {item.text}" for item in self.evidence]
        said = said or ["The file says nothing about where it comes from."]
        standing = f"Content credentials (C2PA): {self.credentials}."
        return [*said, standing, *([self.trailing] if self.trailing else []), self.note]


def read_provenance(data: bytes, *, name: str = "", trust: TrustList | None = None) -> Provenance:
    """What the bytes of an image file say about its origin, without decoding a pixel.

    Broken metadata is passed over. ``trust`` says which signers are known; that of the environment when None.

    Raises:
        ImageError: there is no image; ``name`` serves its message.
        UsageError: the environment names a trust list that cannot be read.
    """
    container = read_container(data)
    found: list[Evidence] = []
    with _open(container, name) as image:
        exif = _exif(image)
        texts = {**_image_texts(image), **_exif_texts(exif), **_iptc_texts(image)}
        found += _camera(exif)
        packet = image.info.get("xmp") or gif_xmp(container)
        mime = Image.MIME.get(str(image.format), "")
    left = MAX_PARSED_TOGETHER
    for source, text in texts.items():
        looked_at = text[: min(MAX_PARSED, left)]
        left -= len(looked_at)
        found += _generator(source, looked_at)
    found += _xmp(packet)
    mime = "image/jpeg" if container.kind == "JPEG" else mime
    standing, stated = credentials(container, mime, trust or trust_list())
    found = [*islice(dict.fromkeys(found), MAX_STATEMENTS), *stated]
    return Provenance(tuple(dict.fromkeys(found)), trailing=_trailing(container), credentials=standing)


def _open(container: Container, name: str) -> Image.Image:
    """The image's header as Pillow reads it, without anything behind the image's end."""
    if container.kind == "PNG":
        try:
            return open_image(_png_head(container), name)
        except ImageError:  # a broken chunk; what precedes the pixels may be whole
            pass
    return open_image(container.image, name)


def _png_head(container: Container) -> bytes:
    """A PNG without pixels: Pillow reads metadata only as far as the first of them, and some programs write it last."""
    wanted = {"IHDR", "tEXt", "zTXt", "iTXt", "eXIf", "IEND"}
    head = [part for part in container.parts if part.name in wanted]
    first = next((part for part in container.parts if part.name == "IDAT"), None)
    chunks = [container.data[part.start - 8 : part.stop + 4] for part in ([*head, first] if first else head)]
    return container.data[:8] + b"".join(chunks)


def _trailing(container: Container) -> str:
    rest = container.data[container.end :]
    if not rest:
        return ""
    kind = content_kind(rest) or content_kind(rest.lstrip(b"\0"))  # phones pad what they append
    return f"{len(rest):,} bytes after the end of the image{f' ({kind})' if kind else ''}, not read"


def run_provenance_command(paths: Sequence[str], as_json: bool = False, trust_file: str | None = None) -> int:
    """``python -m bonaface provenance``: 0, or 1 if no file could be read.

    Prints one panel per file, or one JSON object per line with ``path``, ``status``, ``error``, ``evidence``, ``note``,
    ``trailing`` and ``credentials``. Raises UsageError if there is no file, or the trust list cannot be read.
    """
    trust = trust_list(trust_file)
    warnings.filterwarnings("ignore", module="PIL")  # of broken metadata
    n_files = n_read = 0
    for path in find_inputs(paths):
        n_files += 1
        found, status, error = Provenance(()), "ok", None
        try:
            found = read_provenance(read_bytes(path), name=path, trust=trust)
            n_read += 1
        except ImageError as caught:
            status, error = caught.reason, str(caught)
        if as_json:
            facts = {"path": as_utf8(path), "status": status, "error": error and as_utf8(error)}
            print(json.dumps(facts | asdict(found)))
        else:
            print("\n".join(_panel(path, found, error)))
    if not n_files:
        raise UsageError("no images found", "give files, folders with images, patterns, or - for stdin")
    if not as_json:
        known = f"Known signers: by the trust list {trust}." if trust else "Known signers: none, without a trust list."
        print(f"{NOTE}\n{known}")
    return 0 if n_read else 1


def _panel(path: str, found: Provenance, error: str | None) -> list[str]:
    """A file's evidence in columns, for a terminal."""
    if error is not None:
        return [printable(shown_name(path)), f"  not readable: {printable(error)}", ""]
    trailing = [f"  content credentials (C2PA): {found.credentials}"] if found.credentials != "absent" else []
    trailing += [f"  {found.trailing}"] if found.trailing else []
    if not found.evidence:
        return [printable(path), "  says nothing about where it comes from", *trailing, ""]
    says, source = (max(len(getattr(item, name)) for item in found.evidence) for name in ("says", "source"))
    lines = [f"  {item.says:<{says}}  {item.source:<{source}}  {item.text}" for item in found.evidence]
    return [printable(path), *lines, *trailing, ""]


# --- EXIF ---------------------------------------------------------------------------------------------------------


def _exif(image: Image.Image) -> dict[str, Any]:
    """Tags by name, those of the Exif block included; {} where it is broken."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif"}:
        return {}  # Pillow would decode the pixels to look behind them
    try:
        exif = image.getexif()
        tags = {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:  # Pillow's EXIF parser raises what its input makes it raise
        return {}
    return {ExifTags.TAGS.get(tag, str(tag)): value for tag, value in tags.items()}


def _camera(exif: Mapping[str, Any]) -> Iterator[Evidence]:
    make, model = text_of(exif.get("Make")), text_of(exif.get("Model"))
    taken = [name for name in ("ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength") if name in exif]
    if not (make or model):
        return
    name = model if model.startswith(make) else f"{make} {model}".strip()
    date = text_of(exif.get("DateTimeOriginal"))
    settings = "with exposure settings" if taken else "without exposure settings, which cameras write"
    says: Says = "camera" if taken else "unclear"
    yield Evidence(says, "EXIF", clean(f"{name}, {settings}" + (f", taken {date}" if date else "")))


def _exif_texts(exif: Mapping[str, Any]) -> dict[str, str]:
    names = (
        "ImageDescription", "UserComment", "Software", "ProcessingSoftware", "Artist", "Make", "XPComment",
        "DocumentName",
    )  # fmt: skip
    texts = {f"EXIF {name}": text_of(exif.get(name)) for name in names}
    return {source: text for source, text in texts.items() if text}


# --- Generators ---------------------------------------------------------------------------------------------------

NAMES = re.compile(
    r"\b(midjourney|stable[ -]?diffusion|comfyui|invokeai|novelai|dall[-·. ]?e\b|openai|chatgpt|adobe firefly|firefly"
    r"|imagen \d|gemini|nano banana|ideogram|leonardo\.ai|flux\.?1|fooocus|automatic1111|sd\.next|draw ?things"
    r"|dreamstudio|bing image creator|image creator|meta ai|grok|stylegan\d?|recraft|(made|edited) with google ai)",
    re.IGNORECASE,
)
EDITORS = re.compile(
    r"\b(photoshop|lightroom|gimp|snapseed|facetune|faceapp|remini|meitu|beautyplus|facelab|topaz|luminar|canva)\b",
    re.IGNORECASE,
)
# A person, a camera and an agency may be called like a generator: only a field for a program's name names one.
PROGRAM_FIELD = re.compile(
    r"\b(software|processingsoftware|softwareagent|generator|creatortool|program|parameters)`?$", re.IGNORECASE
)
CREDIT = re.compile(r"^made with google ai$", re.IGNORECASE)  # what Google's generators write, all of the field
A1111, A1111_REST = re.compile(r"Steps: \d+, "), re.compile(r"(Sampler|CFG scale|Seed): ")
MIDJOURNEY = re.compile(r"\bJob ID: [0-9a-f]{8}-|--(v|niji|ar|stylize) [\d.:]+")
# The field in which a program keeps its settings, whatever they are.
OWN_FIELDS = {
    "sd-metadata": "InvokeAI",
    "invokeai_metadata": "InvokeAI",
    "dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
    "generation_data": "a generator",
}


def _image_texts(image: Image.Image) -> dict[str, str]:
    """Text chunks of a PNG, the comment of a GIF."""
    if image.format not in ("PNG", "GIF"):
        return {}
    skipped = ("XML:com.adobe.xmp", "xmp", "exif", "icc_profile", "version", "extension", "background")
    texts = {str(name): value for name, value in image.info.items() if name not in skipped}
    return {f"{image.format} text `{clean(name)}`": text_of(value) for name, value in texts.items() if text_of(value)}


# IPTC-NAA Information Interchange Model 4.2, record 2.
_IPTC_FIELDS = {40: "Instructions", 65: "Program", 80: "By-line", 110: "Credit", 115: "Source", 120: "Caption"}


def _iptc_texts(image: Image.Image) -> dict[str, str]:
    """IPTC fields of a JPEG's Photoshop segment or a TIFF's tag."""
    if not isinstance(image, ImageFile.ImageFile):
        return {}
    try:
        fields = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # Pillow's parser raises what its input makes it raise
        return {}
    texts = {f"IPTC {name}": fields.get((2, number)) for number, name in _IPTC_FIELDS.items()}
    values = {name: value[0] if isinstance(value, list) else value for name, value in texts.items()}
    return {name: text_of(value) for name, value in values.items() if text_of(value)}


def _generator(source: str, text: str) -> Iterator[Evidence]:
    field = source.partition("`")[2].rstrip("`").lower()
    if _is_comfy(text):
        yield Evidence("generated", source, clean(f"a ComfyUI graph: {text}"))
    elif _is_a1111(text):
        yield Evidence("generated", source, clean(f"Stable Diffusion parameters: {text}"))
    elif field in OWN_FIELDS:
        yield Evidence("generated", source, clean(f"settings of {OWN_FIELDS[field]}: {text}"))
    elif MIDJOURNEY.search(text):
        yield Evidence("generated", source, clean(f"a Midjourney prompt: {text}"))
    elif match := NAMES.search(text):
        # A caption may speak of Gemini the telescope; a field for the program's name may not.
        says: Says = "generated" if PROGRAM_FIELD.search(source) or CREDIT.search(text) else "unclear"
        yield Evidence(says, source, clean(f"names {match.group()}: {text}"))
    elif match := EDITORS.search(text):
        yield Evidence("edited", source, clean(f"names {match.group()}: {text}"))


def _is_a1111(text: str) -> bool:
    """Whether another setting follows the steps; in two searches, as one would start anew at every "Steps"."""
    steps = A1111.search(text)
    return steps is not None and A1111_REST.search(text, steps.end()) is not None


def _is_comfy(text: str) -> bool:
    """ComfyUI's ``prompt`` is an object of nodes with a ``class_type``, its ``workflow`` one with a list of nodes."""
    if not text.lstrip().startswith("{"):
        return False
    head = text[:5000]
    return '"class_type"' in head or ('"nodes"' in text and '"last_node_id"' in head)


# IPTC Photo Metadata Standard 2025.1: "used to generate this image".
_AI_FIELDS = {
    "aisystemused": "made with the AI system",
    "aisystemversionused": "version of the AI system",
    "aipromptinformation": "prompt for the AI system",
    "aipromptwritername": "prompt written by",
}
_XMP_FIELDS = ("CreatorTool", "softwareAgent", "Credit", "Software", "description", "UserComment")


def _xmp(packet: Any) -> Iterator[Evidence]:
    packet = packet.encode() if isinstance(packet, str) else packet
    if not isinstance(packet, bytes):  # a TIFF's tag may contain anything
        return
    for namespace, field, value in xmp_fields(packet[:MAX_PARSED]):
        if field.lower() == "digitalsourcetype":
            if namespace != IPTC_EXTENSION:
                continue
            name, says, meaning = source_type(value)
            yield Evidence(says, "XMP digitalSourceType", clean(f"{name}: {meaning}"))
        elif field.lower() in _AI_FIELDS:
            yield Evidence("generated", f"XMP {clean(field)}", clean(f"{_AI_FIELDS[field.lower()]}: {value}"))
        elif field in _XMP_FIELDS:
            yield from _generator(f"XMP {field}", value)


__all__ = ["NOTE", "Evidence", "ImageError", "Provenance", "read_provenance", "run_provenance_command"]
