"""What bytes are, by their first few, and whether their end is missing; nothing is decoded."""

from __future__ import annotations

IMAGE_KINDS = frozenset({"JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"})
# fmt: off
VIDEO_KINDS = frozenset({
    "an MP4 or QuickTime video", "an AVI video", "a Matroska or WebM video", "an Ogg file", "a Windows Media video",
    "a Flash video", "an MPEG video",
})
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"%PDF", "a PDF document"), (b"%!PS", "a PostScript document"), (b"8BPS", "a Photoshop document"),
    (b"\0\0\1\0", "a Windows icon"), (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"), (b"\xff\x0a", "a JPEG XL image"),
    (b"PK\x03\x04", "a ZIP archive or Office document"), (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"), (b"OggS", "an Ogg file"), (b"ID3", "an MP3 file"),
    (b"0&\xb2u\x8ef\xcf\x11", "a Windows Media video"), (b"FLV\1", "a Flash video"),
    (b"\0\0\1\xba", "an MPEG video"), (b"\0\0\1\xb3", "an MPEG video"),
    (b"\x7fELF", "a program"), (b"MZ", "a program"), (b"SQLite format 3", "a SQLite database"),
    (b"\x89HDF", "an HDF5 file"), (b"PAR1", "a Parquet table"), (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not fetched)"),
)
# fmt: on
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def content_kind(data: bytes) -> str | None:
    """What the first bytes say they are: "JPEG", ..., "a PDF document", ...; None where they say nothing."""
    if data[4:8] == b"ftyp":
        brands = data[8 : max(12, min(int.from_bytes(data[:4], "big"), 128))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIC_BRANDS) else "an MP4 or QuickTime video"
    if data[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": "an AVI video", b"WAVE": "a WAV file"}.get(data[8:12])
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    return "a tar archive" if data[257:262] == b"ustar" else _text_kind(data[:1024])


def _text_kind(head: bytes) -> str | None:
    if len(head) < 8:  # a few bytes are letters by chance
        return None
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not merely a character cut at the end
            return None
        text = head[: error.start].decode("utf-8-sig")
    if any(ord(character) < 32 and character not in "\t\n\r\f\x1b" for character in text):
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page"
    if "<svg" in start:
        return "an SVG drawing"
    return "text"


def is_cut(kind: str, data: bytes) -> bool:
    """Whether a file that would not decode lacks the end that its format promises."""
    if kind == "JPEG":  # scan data cannot contain a marker, so the last scan header must be followed by EOI
        scan = data.rfind(b"\xff\xda")
        return scan < 0 or data.find(b"\xff\xd9", scan) < 0
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WebP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return len(data) < 54 or len(data) < int.from_bytes(data[2:6], "little")
    if kind in ("AVIF", "HEIC"):  # boxes, one after another, each with its length
        offset = 0
        while 0 <= offset < len(data):
            length = int.from_bytes(data[offset : offset + 4], "big")
            if length < 8:  # 0 and 1 (to the end, 64-bit) are rare; take the file as whole
                return len(data) - offset < 8
            offset += length
        return offset > len(data)
    return len(data) < 8
