"""What a file says of its origin is found, cut to size, and never crashes the reader; silence proves nothing."""

from __future__ import annotations

import io
import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin
from signing import TYPES, signed

from bonaface.errors import UsageError
from bonaface.imaging.containers import read_container
from bonaface.imaging.header import inspect_image
from bonaface.imaging.images import ImageError
from bonaface.provenance.evidence import MAX_TEXT
from bonaface.provenance.read import NOTE, read_provenance, run_provenance_command

A1111 = "portrait of a woman\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
WIDE = [b"UNICODE\0" + A1111.encode(code) for code in ("utf-16-be", "utf-16-le")]
COMFY = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 5}}})


def encode(kind: str = "JPEG", **save: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "tan").save(buffer, kind, **save)
    return buffer.getvalue()


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    return encode("PNG", pnginfo=info)


def exif(tags: dict[int, Any], block: dict[int, Any] | None = None) -> bytes:
    data = Image.Exif()
    data.update(tags)
    if block:
        data.get_ifd(ExifTags.IFD.Exif).update(block)
    return encode(exif=data)


NAMESPACES = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "I": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "p": "http://example.org/credits/",
        "dc": "http://purl.org/dc/elements/1.1/",
        "m": "http://ns.adobe.com/xap/1.0/mm/",
        "e": "http://example.org/elsewhere/",
    }.items()
)


def xmp(inner: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/" {NAMESPACES}><rdf:RDF>{inner}</rdf:RDF></x:xmpmeta>'.encode()


BASE, EXIF = ExifTags.Base, {ExifTags.Base.ExposureTime: 0.01, ExifTags.Base.FNumber: 2.8}


@pytest.mark.parametrize(
    ("data", "says", "source", "words"),
    [
        (exif({BASE.Make: "Canon", BASE.Model: "Canon EOS R5"}, EXIF), "camera", "EXIF", "Canon EOS R5, with exposure"),
        (exif({BASE.Make: "Apple", BASE.Model: "iPhone 15"}), "unclear", "EXIF", "Apple iPhone 15, without exposure"),
        (png(parameters=A1111), "generated", "PNG text `parameters`", "Stable Diffusion parameters: portrait"),
        (exif({}, {BASE.UserComment: WIDE[0]}), "generated", "EXIF UserComment", "Stable"),
        (exif({}, {BASE.UserComment: WIDE[1]}), "generated", "EXIF UserComment", "Stable"),
        (exif({}, {BASE.UserComment: b"ASCII\0\0\0" + A1111.encode()}), "generated", "EXIF UserComment", "Stable"),
        (png(prompt=COMFY), "generated", "PNG text `prompt`", "ComfyUI"),
        (png(workflow='{"last_node_id": 9, "nodes": []}'), "generated", "PNG text `workflow`", "ComfyUI"),
        (png(Description="a man --v 6.1 Job ID: 0a1b2c3d-1111"), "generated", "PNG text `Description`", "Midjourney"),
        (png(invokeai_metadata="{}"), "generated", "PNG text `invokeai_metadata`", "InvokeAI"),
        (png(Software="NovelAI"), "generated", "PNG text `Software`", "NovelAI"),
        (exif({BASE.Software: "DALL-E 3"}), "generated", "EXIF Software", "DALL-E"),
        (exif({BASE.ImageDescription: "Gemini, the telescope"}), "unclear", "EXIF ImageDescription", "telescope"),
        (exif({BASE.Software: "Adobe Photoshop 25.0"}), "edited", "EXIF Software", "Photoshop"),
        (encode(xmp=xmp('<m:History m:softwareAgent="Firefly"/>')), "generated", "XMP softwareAgent", "Firefly"),
        (exif({BASE.Artist: "Jane Grok"}), "unclear", "EXIF Artist", "Jane Grok"),
        (exif({BASE.Make: "Firefly"}), "unclear", "EXIF Make", "Firefly"),
        (encode(xmp=xmp("<p:Credit>Courtesy of OpenAI</p:Credit>")), "unclear", "XMP Credit", "Courtesy of OpenAI"),
        (png(Author="Jane Grok"), "unclear", "PNG text `Author`", "Jane Grok"),
        (encode(xmp=xmp('<a CreatorTool="Adobe Firefly 2"/>')), "generated", "XMP CreatorTool", "Firefly"),
        (encode(xmp=xmp("<p:Credit>Made with Google AI</p:Credit>")), "generated", "XMP Credit", "Google AI"),
        (encode(xmp=xmp("<I:AISystemUsed>Any model</I:AISystemUsed>")), "generated", "XMP AISystemUsed", ": Any model"),
        (encode(xmp=xmp('<d I:AISystemVersionUsed="3"/>')), "generated", "XMP AISystemVersionUsed", "AI system: 3"),
        (encode(xmp=xmp('<d I:AIPromptInformation="a man"/>')), "generated", "XMP AIPromptInformation", ": a man"),
        (encode(xmp=xmp('<d I:AIPromptWriterName="Me"/>')), "generated", "XMP AIPromptWriterName", "written by: Me"),
        *(
            (encode(kind, xmp=xmp(f'<d I:DigitalSourceType="{TYPES}{name}"/>')), says, "XMP digitalSourceType", name)
            for kind in ("JPEG", "WEBP", "AVIF")
            for name, says in (
                ("trainedAlgorithmicMedia", "generated"),
                ("compositeWithTrainedAlgorithmicMedia", "edited"),
                ("digitalCapture", "camera"),
                ("somethingNew", "unclear"),
            )
        ),
    ],
)  # fmt: skip
def test_each_kind_of_statement_is_found(data: bytes, says: str, source: str, words: str) -> None:
    found = [item for item in read_provenance(data).evidence if item.source == source]
    assert [item.says for item in found] == [says]
    assert words in found[0].text
    assert not found[0].verified


def test_a_file_without_metadata_says_nothing_and_that_proves_nothing() -> None:
    provenance = read_provenance(encode())
    assert provenance.evidence == ()
    assert provenance.lines() == [
        "The file says nothing about where it comes from.", "Content credentials (C2PA): absent.", NOTE,
    ]  # fmt: skip
    assert "removed or forged" in NOTE
    assert "SynthID, cannot be checked here" in NOTE


def test_prompts_of_photographs_are_not_taken_for_generators() -> None:
    harmless = png(Comment="Two steps: 1, walk. My prompt answer", Software="Nikon Transfer", Title="Flux capacitor")
    assert read_provenance(harmless).evidence == ()


def test_text_is_one_short_line_without_tricks() -> None:
    nasty = "\x1b[2J\u202egnp.exe\nDALL-E\r\0" + "x" * 5000
    (item,) = read_provenance(png(Software=nasty)).evidence
    assert len(item.text) <= MAX_TEXT
    assert item.text.isprintable()


def test_no_image_is_an_image_error() -> None:
    with pytest.raises(ImageError):
        read_provenance(b"parameters")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10**6))
def test_broken_metadata_is_passed_over(noise: bytes, place: int) -> None:
    """Noise as EXIF, as XMP, and anywhere behind the header of a file that has all of it."""
    whole = exif(
        {BASE.Make: "Canon", BASE.Software: "GIMP"}, {BASE.UserComment: b"UNICODE\0" + A1111.encode("utf-16-le")}
    )
    start = 20 + place % (len(whole) - 20)
    for data in (
        encode(exif=b"Exif\0\0" + noise),
        encode(xmp=b"<x:xmpmeta" + noise + b"</x:xmpmeta>"),
        whole[:start] + noise + whole[start + len(noise) :],
        encode() + b"jumb c2pa" + noise,
    ):
        try:
            evidence = read_provenance(data).evidence
        except ImageError:
            continue
        assert all(len(item.text) <= MAX_TEXT and item.text.isprintable() for item in evidence)


GENERATED = xmp(f'<rdf:Description I:DigitalSourceType="{TYPES}trainedAlgorithmicMedia"/>')


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (2 + len(payload)).to_bytes(2, "big") + payload


def png_chunk(name: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + name + payload + zlib.crc32(name + payload).to_bytes(4, "big")


def riff_chunk(name: bytes, payload: bytes) -> bytes:
    return name + len(payload).to_bytes(4, "little") + payload + b"\0" * (len(payload) % 2)


def box(name: bytes, payload: bytes) -> bytes:
    return (8 + len(payload)).to_bytes(4, "big") + name + payload


STORE = box(b"jumb", box(b"jumd", bytes.fromhex("6332706100110010800000aa00389b71") + b"\x03c2pa\0"))
XMP_SEGMENT = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + GENERATED)
XMP_CHUNK = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + GENERATED)
PARAMETERS = png_chunk(b"tEXt", b"parameters\0" + A1111.encode())
C2PA_BOX = box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"\0\0\0\0manifest\0" + b"\0" * 8 + STORE)
IPTC = b"\x1c\x02\x6e\0\x13Made with Google AI"
PHOTOSHOP = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC
FORGED = {
    "an XMP packet": GENERATED,
    "an XMP segment": XMP_SEGMENT,
    "an XMP chunk": XMP_CHUNK,
    "generator parameters": PARAMETERS,
    "WebP's XMP chunk": riff_chunk(b"XMP ", GENERATED),
    "WebP's C2PA chunk": riff_chunk(b"C2PA", STORE),
    "a C2PA segment": jpeg_segment(0xEB, b"JP\0\x01\0\0\0\x01" + STORE),
    "a C2PA chunk": png_chunk(b"caBX", STORE),
    "a C2PA box": C2PA_BOX,
    "a box with XMP": box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + GENERATED),
    "a box with an image": box(b"mdat", GENERATED),
    "a generated JPEG": encode(xmp=GENERATED),
    "a generated PNG": png(parameters=A1111),
    "a video": box(b"ftyp", b"mp42\0\0\0\0") + box(b"mdat", GENERATED),
}
KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "MPO")


def two_images() -> bytes:
    """As a phone writes them: the second one, behind the first, is said to be generated."""
    buffer, second = io.BytesIO(), Image.new("RGB", (32, 32), "red")
    Image.new("RGB", (32, 32), "tan").save(buffer, "MPO", save_all=True, append_images=[second])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forged", FORGED)
def test_what_is_appended_to_an_image_is_reported_and_states_nothing(kind: str, forged: str) -> None:
    image = two_images() if kind == "MPO" else encode(kind)
    found = read_provenance(image + FORGED[forged])
    assert found.evidence == ()
    assert not inspect_image(image + FORGED[forged]).has_c2pa
    n_bytes = len(FORGED[forged]) + (len(image) - read_container(image).end)
    assert found.trailing.startswith(f"{n_bytes:,} bytes after the end of the image")
    assert found.trailing in found.lines()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS[:-1]), st.lists(st.binary(max_size=60) | st.sampled_from(list(FORGED.values())), min_size=1)
)
def test_statements_do_not_depend_on_what_follows_the_image(kind: str, appended: list[bytes]) -> None:
    tags = Image.Exif()
    tags[BASE.Software] = "GIMP"
    image = encode(kind, exif=tags, xmp=xmp('<a CreatorTool="Canva"/>'))
    alone, found = read_provenance(image), read_provenance(image + b"".join(appended))
    assert found.evidence == alone.evidence
    assert bool(alone.evidence) == (kind not in ("GIF", "BMP"))  # which Pillow writes without metadata
    assert not alone.trailing
    assert bool(found.trailing) == any(appended)


def test_trailing_bytes_are_named_by_their_kind() -> None:
    assert read_provenance(two_images()).trailing.endswith("bytes after the end of the image (JPEG), not read")
    motion = encode() + box(b"ftyp", b"mp42\0\0\0\0")
    assert "(an MP4 or QuickTime video), not read" in read_provenance(motion).trailing


def with_chunks(*chunks: bytes) -> bytes:
    """A PNG with chunks between its pixels and its end."""
    plain = encode("PNG")
    return plain[:-12] + b"".join(chunks) + plain[-12:]


def after_header(*segments: bytes, **save: Any) -> bytes:
    plain = encode(**save)
    return plain[:2] + b"".join(segments) + plain[2:]


def between_scans(segment: bytes) -> bytes:
    plain = encode(progressive=True)
    at = plain.rindex(b"\xff\xda")
    return plain[:at] + segment + plain[at:]


def with_riff_chunk(chunk: bytes) -> bytes:
    plain = encode("WEBP", xmp=b"<x/>") + chunk
    return plain[:4] + (len(plain) - 8).to_bytes(4, "little") + plain[8:]


def with_thumbnail() -> bytes:
    """EXIF with no tag but a thumbnail, in its second folder."""
    inner = FORGED["a generated JPEG"]
    entries = struct.pack("<HHHIIHHII", 2, 0x0201, 4, 1, 44, 0x0202, 4, 1, len(inner))
    return encode(exif=b"Exif\0\0II*\0" + struct.pack("<IHI", 8, 0, 14) + entries + bytes(4) + inner)


PLACED = xmp(f'<m:Ingredients><a I:DigitalSourceType="{TYPES}trainedAlgorithmicMedia"/></m:Ingredients>')
PROSE = xmp(f'<dc:description>DigitalSourceType="{TYPES}trainedAlgorithmicMedia"</dc:description>')


@pytest.mark.parametrize(
    "data",
    [
        after_header(jpeg_segment(0xFE, GENERATED)),
        after_header(jpeg_segment(0xFE, FORGED["a C2PA segment"])),
        after_header(jpeg_segment(0xE5, b"http://ns.adobe.com/xap/1.0/\0" + GENERATED)),
        after_header(jpeg_segment(0xEB, STORE)),
        encode(icc_profile=GENERATED + PARAMETERS + STORE),
        between_scans(XMP_SEGMENT),
        between_scans(FORGED["a C2PA segment"]),
        with_thumbnail(),
        with_chunks(png_chunk(b"prVt", GENERATED + STORE)),
        encode("PNG", icc_profile=GENERATED + STORE),
        with_riff_chunk(riff_chunk(b"JUNK", GENERATED + STORE)),
        with_riff_chunk(riff_chunk(b"iTXt", b"parameters\0" + A1111.encode())),
        encode("GIF", comment=GENERATED + STORE),
        encode(xmp=PROSE),
        encode(xmp=GENERATED.replace(b" I:", b" e:")),
        encode(xmp=PLACED),
        encode(xmp=xmp("<m:Ingredients><rdf:li><I:AISystemUsed>Any</I:AISystemUsed></rdf:li></m:Ingredients>")),
        encode(xmp=b"<!--" + GENERATED + b"--><a/>"),
    ],
)
def test_what_stands_in_the_wrong_place_states_nothing(data: bytes) -> None:
    assert read_provenance(data).evidence == ()
    assert not inspect_image(data).has_c2pa


GIF_XMP = b"\x21\xff\x0bXMP DataXMP" + GENERATED + bytes([1, *range(255, -1, -1), 0])
AS_RESOURCE = xmp(f'<a><I:DigitalSourceType rdf:resource="{TYPES}trainedAlgorithmicMedia"/></a>')
AS_ELEMENT = xmp(f"<I:DigitalSourceType>{TYPES}trainedAlgorithmicMedia</I:DigitalSourceType>")


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_chunks(XMP_CHUNK), "XMP digitalSourceType"),  # where ExifTool writes it
        (with_chunks(PARAMETERS), "PNG text `parameters`"),
        (after_header(jpeg_segment(0xED, PHOTOSHOP)), "IPTC Credit"),
        (encode("TIFF", tiffinfo={700: GENERATED}), "XMP digitalSourceType"),
        (encode("GIF")[:-1] + GIF_XMP + b"\x3b", "XMP digitalSourceType"),
        (encode(xmp=AS_RESOURCE), "XMP digitalSourceType"),
        (encode(xmp=AS_ELEMENT), "XMP digitalSourceType"),
    ],
)
def test_the_right_place_counts_wherever_it_lies_in_the_file(data: bytes, source: str) -> None:
    (item,) = read_provenance(data).evidence
    assert (item.says, item.source) == ("generated", source)


def test_an_xml_bomb_is_not_expanded() -> None:
    layers = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 20}">' for i in range(8))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "DALL-E">{layers}]>'.encode() + xmp("<p:CreatorTool>&e8;</p:CreatorTool>")
    assert read_provenance(encode(xmp=bomb)).evidence == ()


@pytest.mark.parametrize(
    "data",
    [
        after_header(FORGED["a C2PA segment"]),
        with_chunks(FORGED["a C2PA chunk"]),
        with_riff_chunk(FORGED["WebP's C2PA chunk"]),
    ],
)
def test_a_forged_store_is_present_but_never_signed(data: bytes) -> None:
    (item,) = read_provenance(data).evidence
    assert (item.says, item.source, item.verified) == ("unclear", "C2PA", False)
    assert "signed" not in item.text
    assert "cannot be read" in item.text


def test_without_the_library_credentials_are_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    (item,) = read_provenance(signed(encode())).evidence
    assert (item.says, item.verified) == ("unclear", False)
    assert "present but not verified" in item.text


def test_a_signed_image_keeps_its_statement_whatever_is_appended() -> None:
    data = signed(encode())
    alone, found = read_provenance(data), read_provenance(data + signed(encode("JPEG", quality=50)) + GENERATED)
    assert alone.evidence == found.evidence
    assert found.evidence[0].verified
    assert found.trailing


def test_credentials_moved_to_another_image_are_no_statement() -> None:
    donor, victim = signed(encode()), encode(quality=50)
    segments = [p for p in read_container(donor).parts if p.name == "APP11"]
    moved = b"".join(donor[part.start - 4 : part.stop] for part in segments)
    (item,) = read_provenance(victim[:2] + moved + victim[2:]).evidence
    assert (item.says, item.verified) == ("unclear", False)
    assert "NOT VALID" in item.text


def test_the_command_shows_a_panel_or_json_and_goes_on_after_a_bad_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a\x1b.png").write_bytes(png(parameters=A1111))
    (tmp_path / "b.jpg").write_bytes(encode())
    (tmp_path / "c.jpg").write_text("no picture at all")
    assert run_provenance_command([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert lines[1].startswith("  generated  PNG text `parameters`  Stable Diffusion parameters")
    assert lines[4] == "  says nothing about where it comes from"
    assert lines[7].startswith("  not readable")
    assert lines[-2:] == [NOTE, "Known signers: none, without a trust list."]
    assert run_provenance_command([str(tmp_path), str(tmp_path / "none.jpg")], as_json=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok", "wrong extension", "missing"]
    assert rows[0]["evidence"][0]["says"] == "generated"
    assert all(row["note"] == NOTE for row in rows)
    assert run_provenance_command([str(tmp_path / "c.jpg")]) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image"):
        run_provenance_command([str(tmp_path / "empty")])
