"""What the name of a folder or a file says: a generator or camera, a person, a video, a number in a series."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable

from bonaface.data.labels import said_by

SOURCE_WORDS = {
    "adm", "afhq", "aflw", "agedb", "amazon", "android", "appa", "archive", "artbreeder", "artifact", "attgan",
    "auraflow", "aurora", "azure", "benchmark", "biggan", "bing", "blendface", "bria", "calfw", "caltech", "cam",
    "camera", "canon", "canva", "casia", "cctv", "celeba", "celebahq", "celebdf", "celebvhq", "cfd", "cogview",
    "collection", "commons", "controlnet", "corpus", "cplfw", "craiyon", "crawl", "crawled", "crema", "crn",
    "cyclegan", "dall", "dalle", "database", "dataset", "ddim", "ddpm", "deepai", "deeperforensics", "deepfacelab",
    "deepfacelive", "deepfake", "deepfakes", "deepfloyd", "deepswap", "device", "dfd", "dfdc", "dffd", "diffae",
    "diffswap", "diffusion", "dit", "doubao", "dreambooth", "dreamina", "dreamlike", "dreamshaper", "dslr", "emu",
    "ernie", "exist", "faceapp", "facebook", "facedancer", "faceforensics", "facefusion", "facescrub",
    "faceshifter", "faceswap", "fairface", "fakeavceleb", "feret", "ffhq", "ffpp", "film", "films", "firefly",
    "flickr", "flux", "forgerynet", "fotor", "freepik", "frgc", "fsgan", "fuji", "fujifilm", "galaxy", "gan",
    "gans", "gaugan", "gen", "generated", "generator", "genimage", "getty", "gettyimages", "ghost", "glide",
    "google", "gopro", "grok", "hallo", "hdtf", "helen", "hidream", "hifiswap", "huawei", "huggingface", "hunyuan",
    "ibug", "ideogram", "imagen", "imdb", "imle", "inpainting", "instagram", "instantid", "inswapper", "internet",
    "iphone", "istock", "janus", "jourdb", "juggernaut", "kaggle", "kandinsky", "kling", "kodak", "kolors", "krea",
    "laion", "laptop", "lcm", "ldm", "leica", "lensa", "lfw", "linkedin", "lora", "lsun", "magazine", "mead",
    "media", "megaface", "method", "midjourney", "mirrorless", "mj", "mobileswap", "morph", "movies", "mugshot",
    "mugshots", "neuraltextures", "news", "newspaper", "nightcafe", "nikon", "olympus", "omnigen", "oneplus",
    "online", "openai", "openjourney", "panasonic", "passport", "pexels", "pggan", "phone", "photomaker", "picsart",
    "pika", "pinterest", "pixabay", "pixart", "pixel", "playground", "press", "progan", "proprietary", "pubfig",
    "qwen", "ravdess", "realvis", "recraft", "reddit", "reface", "reve", "roop", "runway", "sadtalker", "samsung",
    "sana", "scanner", "scraped", "sd", "sdv", "sdxl", "seedream", "selfie", "selfies", "sensor", "set",
    "shutterstock", "simswap", "sitd", "smartphone", "sony", "sora", "source", "src", "stable", "stargan", "stock",
    "stylegan", "stylenerf", "surveillance", "swap", "synthbuster", "telegram", "thispersondoesnotexist", "tiktok",
    "tongyi", "tpdne", "turbo", "tv", "twitter", "uniface", "unsplash", "utkface", "vae", "veo", "vfhq", "vggface",
    "vk", "voxceleb", "vqdm", "vqgan", "web", "webcam", "webface", "weibo", "wider", "widerface", "wiki",
    "wikimedia", "wikipedia", "wilddeepfake", "wombo", "wonder", "wukong", "xiaomi", "xl", "youtube",
}  # fmt: skip
# What a part of a data set may be called, and a person only beside another name.
COMMON_WORDS = {
    "additional", "adult", "adults", "africa", "african", "aligned", "america", "asia", "asian", "babies", "baby",
    "big", "black", "boy", "boys",
    "bright", "cats", "caucasian", "child", "children", "close", "color", "colour", "compressed", "cropped",
    "crops", "dark", "day", "dogs", "easy", "europe", "european", "extra", "face", "faces", "far", "female", "females",
    "frame", "frames", "frontal", "full", "girl", "girls", "glasses", "gray", "grey", "half", "hard", "heic",
    "high", "image", "images", "img", "imgs", "indian", "indoor", "indoors", "jpeg", "jpg", "kid", "kids",
    "landscape", "large", "latina", "latino", "light", "low", "main", "male", "males", "man", "medium", "men",
    "mid", "misc", "mixed", "more", "near", "neutral", "new", "night", "old", "original", "other", "others",
    "outdoor", "outdoors", "photo", "photograph", "photographs", "photos", "picture", "pictures", "png", "portrait",
    "portraits", "profile", "quality", "raw", "rgb", "sample", "samples", "selected", "senior", "seniors", "side",
    "small", "smiling", "studio", "teen", "teens", "unaligned", "uncompressed", "unknown", "video", "videos",
    "webp", "white", "woman", "women", "young",
}  # fmt: skip
UNIT_WORDS = {
    "actor", "clip", "episode", "id", "ident", "identity", "individual", "interview", "movie", "participant",
    "patient", "pers", "person", "rec", "recording", "scene", "seq", "sequence", "sess", "session", "speaker", "spk",
    "subj", "subject", "take", "track", "user", "vid", "video", "volunteer", "youtuber",
}  # fmt: skip
FRAME = re.compile(r"(?:^|(?<=[^a-z]))(?:frame|frm)s?[-_. ]*\d+", re.IGNORECASE)
COPY = re.compile(r"(?P<unit>.*[^-_. ])[-_. ]*\((?P<number>\d+)\)")  # as Windows names several files at once
AFTER_FRAME = re.compile(r"[-_. ]+(?P<unit>(?=.*\d).{3,})")
NUMBERED = re.compile(r"(?P<unit>.*[^-_. ])[-_. ]+(?:[a-z]|img|image|face|crop)?(?P<number>\d+)", re.IGNORECASE)
VARIANT = re.compile(
    r"(part|fold|batch|chunk|shard|subset|split|set|vol|volume|dis[ck]|size|res|px|crf|quality|level|c|q|v)?[-_. ]*"
    r"\d+([-_. ]?x[-_. ]?\d+|px|p|k)?",
    re.IGNORECASE,
)
SIDE = re.compile(r"(?P<rest>.*\d)[-_. ]+(?P<side>[^\W\d_]+)")
VIDEO = re.compile(r"\.(mp4|avi|mov|mkv|webm|m4v)$", re.IGNORECASE)
MOST_NAMES = 5  # of one person


def without_video_suffix(name: str) -> str:
    """``000.mp4`` -> 000: a folder of the frames of a file."""
    return VIDEO.sub("", name)


def words_of(name: str) -> set[str]:
    """Its words in lower case, of StyleGAN as of style_gan."""
    runs = re.findall(r"[^\W\d_]+", name)
    return {word.lower() for run in runs for word in [run, *re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", run)]}


def is_source_name(name: str) -> bool:
    """``StyleGAN2``, ``Flickr_Faces``, ``young women``: a generator, site, camera, data set, or part of one."""
    words = words_of(name)
    return bool(words & SOURCE_WORDS) or (bool(words) and words <= COMMON_WORDS)


def is_unit_name(name: str) -> bool:
    """``person_001``, ``id10012``, ``session-berlin``; neither the bare word nor ``this_person_does_not_exist``."""
    words = words_of(name)
    return bool(words & UNIT_WORDS) and name.lower() not in UNIT_WORDS and "exist" not in words


def is_variant(name: str) -> bool:
    """``512x512``, ``c23``, ``part_2``: all images at one size or compression, or a piece of them."""
    return VARIANT.fullmatch(name) is not None


def are_serial(names: Iterable[str]) -> bool:
    """``a07, a12, a31``: most have the same letters around their digits."""
    shapes = [re.sub(r"\d+", "#", name) for name in names]
    shape, n = Counter(shapes).most_common(1)[0]
    return "#" in shape and n >= 0.8 * len(shapes)


def is_counter(names: Collection[str]) -> bool:
    """Whether names that differ in numbers alone count videos, not the versions, years or sizes of a source.

    A counter begins with 0, has zeros in front, or thousands; one beside words such as ``face`` may have any number.
    """
    if all(words_of(name) <= COMMON_WORDS for name in names):
        return True
    numbers = [number for name in names for number in re.findall(r"\d+", name)]
    thousands = [n for n in map(int, numbers) if n > 999 and n % 64 and not 1900 <= n < 2100]
    return len(names) > 3 and (any(number[0] == "0" for number in numbers) or len(thousands) >= len(names))


def is_number(name: str) -> bool:
    """Digits and no letter, as ``000_003``, or ``000.mp4``."""
    name = without_video_suffix(name)
    return not re.search(r"[^\W\d_]", name) and bool(re.search(r"\d", name))


def is_opaque(name: str) -> bool:
    """A hash, a UUID, or the id of a YouTube video."""
    name = without_video_suffix(name)
    if re.fullmatch(r"[0-9a-fA-F-]{8,}", name) and re.search(r"\d", name):
        return True
    kinds = (r"[a-z]", r"[A-Z]", r"[\d_-]")
    return bool(re.fullmatch(r"[\w-]{11}", name, re.ASCII)) and all(re.search(kind, name) for kind in kinds)


def is_wordy(name: str) -> bool:
    """``anna``, ``Åsa Öberg``, ``李伟``: one word or a few, of letters alone."""
    name = without_video_suffix(name)
    words = _parts(name)
    return 0 < len(words) <= MOST_NAMES and not any(map(str.isnumeric, name))


def is_person_name(name: str) -> bool:
    """``Ada_Lovelace``, ``li wei``: two words or more, of letters alone."""
    return is_wordy(name) and len(_parts(name)) > 1


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\s_\-.'’]+", name) if any(map(str.isalpha, part))]


def is_bare_frame(stem: str) -> bool:
    """``frame_0012``, and nothing else."""
    return FRAME.fullmatch(stem) is not None


def is_frame(stem: str) -> bool:
    """``frame_0012``, with or without more around it."""
    return bool(FRAME.search(stem))


def split_stem(stem: str) -> tuple[str, int] | None:
    """``vid1_0012``, ``vid1_0012_fake``, ``vid1 (12)``, ``frame12_vid1`` -> vid1, 12.

    None where it names no series, or no number in it.
    """
    if (told := SIDE.fullmatch(stem)) is not None and said_by(told["side"]):
        stem = told["rest"]
    if (frame := FRAME.search(stem)) is not None:
        after = AFTER_FRAME.fullmatch(stem, frame.end())
        unit = stem[: frame.start()].rstrip("-_. ") or (after["unit"] if after else "")
        return (unit, int(re.findall(r"\d+", frame[0])[0])) if unit else None
    match = COPY.fullmatch(stem) or NUMBERED.fullmatch(stem)
    return (match["unit"], int(match["number"])) if match else None
