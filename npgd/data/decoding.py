"""One picture as bytes of one shape: what its format says is kept, or the picture is refused.

Pillow clips what has more than 8 bits and drops what is transparent; neither happens here.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO, TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from npgd.checks import printable

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
# The decoders of these suffixes. Pillow has others, of which one starts Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
# Pictures that people have and that are not read here.
OTHER_SUFFIXES = {
    *(".apng", ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dib", ".dng", ".emf", ".eps", ".exr"),
    *(".fits", ".hdr", ".heic", ".heif", ".hif", ".icns", ".ico", ".j2k", ".jfif", ".jp2", ".jpe"),
    *(".jpf", ".jpx", ".jxl", ".mpo", ".nef", ".orf", ".pam", ".pbm", ".pcx", ".pdf", ".pfm"),
    *(".pgm", ".pnm", ".ppm", ".ps", ".psd", ".qoi", ".raf", ".raw", ".rw2", ".svg", ".tga"),
    *(".wmf", ".xbm", ".xcf", ".xpm"),
}
LARGEST_PICTURE = 64_000_000
MOST_SCANS = 500  # a progressive JPEG has about ten
# Pillow's modes of at most 8 bits a channel with an agreed black and white.
EIGHT_BITS = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "La", "PA", "RGBA", "RGBa"}
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_SAMPLE_FORMAT, ORIENTATION = 258, 262, 339, 0x0112


def decode(
    file: IO[bytes],
    image_shape: tuple[int, int, int],
    crop: int | None = None,
    background: int = 0,
) -> UInt8[np.ndarray, "c h w"]:
    """One picture as bytes: grey or RGB, cropped, resized with Lanczos' filter, which antialiases.

    `crop` is the side of the centred square cut out first; without it, the largest centred
    rectangle of the wanted aspect ratio is kept. Transparent pixels show the grey value
    `background`. 16-bit grey is scaled, v ↦ v/257. Of several pictures in a file, the first counts.

    Raises:
        ValueError: more than 64 megapixels, a picture smaller than the crop, or one whose numbers
            have no agreed white (32-bit integers, floating point, signed bytes).
        Exception: whatever Pillow's decoders raise on a file that is no picture, or is damaged.
    """
    from PIL import Image, ImageOps

    channels, height, width = image_shape
    with _opened(file) as opened:
        opened.load()
        picture = _shown(opened, background).convert("L" if channels == 1 else "RGB")
        turned = _TURNED.get(opened.getexif().get(ORIENTATION, 1))
    if turned is not None:
        picture = picture.transpose(Image.Transpose[turned])
    # A picture that has the wanted size was cropped when it was made.
    if picture.size != (width, height):
        if crop is not None:
            if min(picture.size) < crop:
                across, down = picture.size
                raise ValueError(f"{across}×{down} pixels, smaller than the crop of {crop}")
            left, top = ((side - crop) // 2 for side in picture.size)
            picture = picture.crop((left, top, left + crop, top + crop))
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.array(picture).reshape(height, width, channels).transpose(2, 0, 1)


def _scans(file: IO[bytes]) -> int:
    """How often a JPEG goes over its pixels: each scan begins with a marker."""
    place = file.tell()
    file.seek(0)
    number = sum(piece.count(b"\xff\xda") for piece in iter(lambda: file.read(2**20), b""))
    file.seek(place)
    return number


# EXIF's orientations, by Pillow's names of what puts them right.
_TURNED = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _opened(file: IO[bytes]) -> Image:
    """The picture before its pixels are read; ValueError for one too large, or of no known kind."""
    from PIL import Image, UnidentifiedImageError

    too_large = f"has more than {LARGEST_PICTURE // 10**6} megapixels; scale it down first"
    try:
        opened = Image.open(file, formats=FORMATS)
        if opened.width * opened.height > LARGEST_PICTURE:
            raise ValueError(too_large)
        if opened.format == "PNG":  # its checksums, which loading leaves out
            opened.verify()
            file.seek(0)
            opened = Image.open(file, formats=FORMATS)
        elif opened.format in ("JPEG", "MPO") and _scans(file) > MOST_SCANS:
            raise ValueError(f"has more than {MOST_SCANS} scans, which take long and show nothing")
    except Image.DecompressionBombError as error:
        raise ValueError(too_large) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"is no picture, or a damaged one ({', '.join(FORMATS)})") from error
    return opened


def _shown(opened: Image, background: int) -> Image:
    """The picture with 8 bits a channel, as it shows on a ground of one grey value."""
    from PIL import Image

    sixteen = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PNG")
    if sixteen:
        return _scaled(opened, background)
    tags = getattr(opened, "tag_v2", {})  # a TIFF's
    signed = 2 in _numbers(tags.get(TIFF_SAMPLE_FORMAT))
    if opened.mode not in EIGHT_BITS or signed:
        kind = "signed bytes" if opened.mode in EIGHT_BITS else f"pixels of mode {opened.mode}"
        raise ValueError(f"has {kind}, whose white is not agreed upon; save 8- or 16-bit grey, RGB")
    if opened.has_transparency_data or opened.mode in ("La", "RGBa", "PA"):
        colours = opened.convert("LA") if opened.mode == "La" else opened
        ground = Image.new("RGBA", opened.size, (background, background, background, 255))
        return Image.alpha_composite(ground, colours.convert("RGBA"))
    return opened


def _scaled(opened: Image, background: int) -> Image:
    """16-bit grey as 8-bit, rounded; a TIFF of 12 bits, or with white at 0, as its tags say."""
    from PIL import Image

    values = np.asarray(opened)
    tags = getattr(opened, "tag_v2", {})
    white = 4095 if 12 in _numbers(tags.get(TIFF_BITS)) else 65535
    grey = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if 0 in _numbers(tags.get(TIFF_PHOTOMETRIC)):
        grey = 255 - grey
    clear = opened.info.get("transparency")
    if isinstance(clear, int):
        grey = np.where(values == clear, np.uint8(background), grey)
    return Image.fromarray(grey)


def _numbers(tag: object) -> tuple[object, ...]:
    """A TIFF's tag as a tuple: Pillow gives one number, several, or None."""
    return tag if isinstance(tag, tuple) else (tag,)


# What decoders raise with a text that says enough.
_SPEAKING = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def why(error: Exception) -> str:
    """Why a picture is skipped, in one printable line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if not isinstance(error, _SPEAKING):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = printable(" ".join(text.split()) or type(error).__name__)
    return line if len(line) <= 200 else f"{line[:199]}…"
