"""What the name of a folder or a file says: a generator or camera, a person, a video, a number in a series."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

SOURCE_WORDS = {
    "adm", "afhq", "amazon", "attgan", "azure", "biggan", "blendface", "cam", "camera", "canon", "casia", "celeba",
    "celebahq", "celebdf", "collection", "crn", "cyclegan", "dall", "dalle", "dataset", "ddim", "ddpm", "deepfacelab",
    "deepfake", "deepfakes", "deepfloyd", "deepswap", "device", "dfd", "dfdc", "diffae", "diffswap",
    "diffusion", "dit", "emu", "faceapp", "facedancer", "faceforensics", "faceshifter", "faceswap", "fairface",
    "ffhq", "firefly", "flux", "fsgan", "gan", "gans", "gaugan", "gen", "generator", "glide", "hifiswap", "ideogram",
    "imagen", "imle", "inswapper", "iphone", "jourdb", "kling", "laion", "ldm", "lfw", "lora", "lsun", "method",
    "midjourney", "mj", "mobileswap", "neuraltextures", "nikon", "openai", "pggan", "phone", "photos", "pika",
    "pixart", "progan", "proprietary", "reface", "roop", "runway", "sana", "scanner", "sd", "sdv", "sdxl", "sensor",
    "set", "simswap", "sitd", "sora", "source", "src", "stable", "stargan", "stylegan", "swap", "tpdne", "turbo",
    "uniface", "unsplash", "utkface", "vae", "veo", "vggface", "voxceleb", "vqdm", "vqgan", "web", "webcam", "wukong",
    "xl",
}  # fmt: skip
UNIT_WORDS = {
    "actor", "clip", "episode", "id", "ident", "identity", "individual", "interview", "movie", "participant",
    "patient", "pers", "person", "rec", "recording", "scene", "seq", "sequence", "sess", "session", "speaker", "spk",
    "subj", "subject", "take", "track", "user", "vid", "video", "volunteer", "youtuber",
}  # fmt: skip
FRAME = re.compile(r"(?:^|(?<=[^a-z]))(?:frame|frm)s?[-_. ]*\d+", re.IGNORECASE)
NUMBERED = re.compile(r"(?P<unit>.*[^-_. ])[-_. ]+(?:[a-z]|img|image|face|crop)?(?P<number>\d+)", re.IGNORECASE)
PERSON_NAME = re.compile(r"[^\W\d_a-z][\w.'’-]*(?:[_ ][^\W\d_a-z][\w.'’-]*)+")


def words_of(name: str) -> set[str]:
    """Its words in lower case, of StyleGAN as of style_gan."""
    runs = re.findall(r"[^\W\d_]+", name)
    return {word.lower() for run in runs for word in [run, *re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", run)]}


def is_unit_name(name: str) -> bool:
    """``person_001``, ``id10012``, ``session-berlin``; not the bare word."""
    return bool(words_of(name) & UNIT_WORDS) and name.lower() not in UNIT_WORDS


def are_serial(names: Iterable[str]) -> bool:
    """``a07, a12, a31``: most have the same letters around their digits."""
    shapes = [re.sub(r"\d+", "#", name) for name in names]
    shape, n = Counter(shapes).most_common(1)[0]
    return "#" in shape and n >= 0.8 * len(shapes)


def is_number(name: str) -> bool:
    return not re.search(r"[^\W\d_]", name) and bool(re.search(r"\d", name))


def is_opaque(name: str) -> bool:
    """A hash, a UUID, or the id of a YouTube video."""
    if re.fullmatch(r"[0-9a-fA-F-]{8,}", name) and re.search(r"\d", name):
        return True
    kinds = (r"[a-z]", r"[A-Z]", r"[\d_-]")
    return bool(re.fullmatch(r"[\w-]{11}", name, re.ASCII)) and all(re.search(kind, name) for kind in kinds)


def is_person_name(name: str) -> bool:
    """``Ada_Lovelace``: two words or more that begin with capitals."""
    return bool(PERSON_NAME.fullmatch(name))


def is_frame(stem: str) -> bool:
    """``frame_0012``, with or without more around it."""
    return bool(FRAME.search(stem))


def split_stem(stem: str) -> tuple[str, int] | None:
    """``vid1_0012`` -> vid1, 12; None where it has no series or no number."""
    if (frame := FRAME.search(stem)) is not None:
        unit = stem[: frame.start()].rstrip("-_. ")
        return (unit, int(re.findall(r"\d+", frame[0])[0])) if unit else None
    match = NUMBERED.fullmatch(stem)
    return (match["unit"], int(match["number"])) if match else None
