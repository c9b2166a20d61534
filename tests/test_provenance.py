"""What a file says of its origin is found, cut to size, and never crashes the reader; silence proves nothing."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from bonafide.errors import UsageError
from bonafide.images import ImageError
from bonafide.provenance import MAX_TEXT, NOTE, read_provenance, run_provenance_command

A1111 = "portrait of a woman\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
WIDE = [b"UNICODE\0" + A1111.encode(code) for code in ("utf-16-be", "utf-16-le")]
COMFY = json.dumps({"3": {"class_type": "KSampler", "inputs": {"seed": 5}}})
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


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


def xmp(inner: str) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inner}</rdf:RDF></x:xmpmeta>'.encode()


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
        (encode(xmp=xmp('<a CreatorTool="Adobe Firefly 2"/>')), "generated", "XMP CreatorTool", "Firefly"),
        (encode(xmp=xmp("<p:Credit>Made with Google AI</p:Credit>")), "generated", "XMP Credit", "Google AI"),
        *(
            (encode(kind, xmp=xmp(f'<d e:DigitalSourceType="{TYPES}{name}"/>')), says, "XMP digitalSourceType", name)
            for kind in ("JPEG", "WEBP")
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
    assert provenance.lines() == ["The file says nothing about where it comes from.", NOTE]
    assert "removed or forged" in NOTE


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


def _certificate(name: str, issuer: str, key: Any, signer: Any) -> bytes:
    """As C2PA 2.1, 14.5 wants it: an authority, or a signer's with the purpose of signing e-mail."""
    now, authority = datetime.datetime.now(datetime.UTC), name == issuer

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(oid, text) for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)])

    usage = x509.KeyUsage(True, False, False, False, False, authority, authority, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(usage, critical=True)
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed(data: bytes) -> bytes:
    """The JPEG with content credentials of a generator that we made up."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    chain = _certificate("Generator Ltd", "Root", key, authority) + _certificate("Root", "Root", authority, authority)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    created = {"action": "c2pa.created", "digitalSourceType": TYPES + "trainedAlgorithmicMedia"}
    manifest = {
        "claim_generator_info": [{"name": "FaceMaker", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [created]}}],
    }
    info = c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=private, ta_url=None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest)) as builder:
        builder.sign(signer, "image/jpeg", io.BytesIO(data), out)
    return out.getvalue()


def test_content_credentials_are_read_and_their_signature_is_checked() -> None:
    data = signed(encode())
    (item,) = read_provenance(data).evidence
    assert (item.says, item.source, item.verified) == ("generated", "C2PA", True)
    assert "FaceMaker" in item.text
    assert "Generator Ltd" in item.text
    at = data.rfind(b"\xff\xda") + 20
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    (item,) = read_provenance(changed).evidence
    assert not item.verified
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
    assert lines[-1] == NOTE
    assert run_provenance_command([str(tmp_path), str(tmp_path / "none.jpg")], as_json=True) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok", "wrong extension", "missing"]
    assert rows[0]["evidence"][0]["says"] == "generated"
    assert all(row["note"] == NOTE for row in rows)
    assert run_provenance_command([str(tmp_path / "c.jpg")]) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image"):
        run_provenance_command([str(tmp_path / "empty")])
