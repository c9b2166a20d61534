"""A raw folder -> aligned, deduplicated face crops that differ between classes in what they show alone.

What gives a class away before any pixel is understood is taken away, alike for every file:

* *Framing*: the main face, square, with one margin; where no face is found the centre square, and ``metadata.csv``
  says so.
* *Size*: every file's side is drawn from the same uniform distribution, whatever its class or its own size. The
  range should be one that nearly all crops fill without upscaling, for upscaled pictures are soft, and softness tells
  the class as well as size did. The summary counts those that had to be upscaled.
* *Encoding*: every crop is brought to the common JPEG history (:func:`bonafide.degradations.common_history`), scaled
  with a random kernel, and saved as baseline JPEG 4:2:0 at a quality drawn from one distribution, without metadata.

What stays is content: among file facts, the bytes per pixel that it takes to code it.

Files that cannot be read are dropped, and so are exact duplicates: all but the first where they agree on the label, all
of them where they do not, since then no label can be trusted. ``dropped.csv`` names each with its reason. Near
duplicates stay and share a ``group``, which the splitter keeps whole.

Every draw is a function of the seed and the file's path in the raw folder, so neither the number of processes nor an
interruption changes a byte. Finished files are journalled; the same command continues after a kill.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm

from bonafide.degradations import common_history, encode_jpeg, random_kernel
from bonafide.errors import UsageError
from bonafide.faces import FaceDetector, crop_face, find_main_face
from bonafide.images import ImageError, decode_image, inspect_image
from bonafide.listing import Listing, image_bytes, list_data
from bonafide.splits import merge_groups

