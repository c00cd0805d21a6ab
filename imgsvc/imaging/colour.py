"""Convert colours: to sRGB, to eight bits, and onto a white background."""

from __future__ import annotations

from io import BytesIO
from itertools import chain, product

from PIL import Image, ImageChops, ImageCms, ImageMath

from imgsvc.domain.errors import ErrorCode, ServiceError

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"})
_SRGB_TOLERANCE = 2  # of 255: profiles that all mean sRGB differ by this much


def in_plain_mode(image: Image.Image) -> Image.Image:
    """The same pixels in a mode that the later steps know.

    Raises:
        ServiceError: UNSUPPORTED_FORMAT if there is no such mode.
    """
    if image.mode in _PLAIN_MODES:
        return image
    if image.mode.startswith("I"):
        low, high = image.convert("I").getextrema()
        if low >= 0 and high <= 0xFFFF:  # type: ignore[operator]  # noqa: PLR2004
            return image.convert("I").convert("I;16")
    if image.mode in {"I", "F", "LAB"}:
        # There is no agreed black and white, so any scaling would be a guess.
        raise ServiceError(
            ErrorCode.UNSUPPORTED_FORMAT,
            "Pixels must be whole numbers of at most 16 bits in grey, RGB or CMYK.",
        )
    return image.convert("RGBA" if image.mode in {"PA", "La", "RGBa"} else "RGB")


def in_srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image in sRGB (grey stays grey), and whether that changed its pixels."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        converted = _converted(image, profile) if profile else None
        return converted or image.convert("RGB"), True
    if not profile or image.mode in {"1", "I;16"}:
        return image, False
    if image.mode == "P":
        converted = _palette_converted(image, profile)
    elif image.mode == "LA":
        converted = _converted(image.getchannel("L"), profile)
        if converted:
            converted = Image.merge("LA", (converted, image.getchannel("A")))
    else:
        # Conversion would move the colour that means transparent: make it a channel first.
        keyed = "transparency" in image.info
        if keyed and image.mode == "L":
            return in_srgb(image.convert("LA"))
        converted = _converted(image.convert("RGBA") if keyed else image, profile)
    return converted or image, converted is not None


def _converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """An L, RGB, RGBA or CMYK image in sRGB; None if it is in sRGB or its profile is unusable."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGBA" if image.mode == "RGBA" else "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
        if image.mode != "CMYK" and _moves_little(transform, image.mode):
            return None
        converted = transform.apply(image)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return converted.getchannel("G") if image.mode == "L" else converted


def _moves_little(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB by another name: 216 probed colours hardly change."""
    colours = bytes(chain.from_iterable(product(range(0, 256, 51), repeat=3)))
    probe = Image.frombytes("RGB", (216, 1), colours).convert(mode)
    moved = ImageChops.difference(probe.convert("RGB"), transform.apply(probe).convert("RGB"))
    return all(high <= _SRGB_TOLERANCE for _, high in moved.getextrema())  # type: ignore[misc]


def _palette_converted(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A palette image with its palette in sRGB: the indices stay, and so does the size."""
    colours = bytes(image.getpalette("RGB") or ())
    row = _converted(Image.frombytes("RGB", (len(colours) // 3, 1), colours), profile)
    if row:
        image.putpalette(row.tobytes())
    return image if row else None


def eight_bit(image: Image.Image) -> Image.Image:
    """Sixteen bits of grey scaled to eight, white to white; Pillow's conversion would clip."""
    if image.mode != "I;16":
        return image
    grey = image.point(lambda value: value * (1 / 257) + 0.5).convert("L")
    key = image.info.get("transparency")
    if key is None:
        return grey
    shown = ImageMath.lambda_eval(lambda of: (of["v"] != key) * 255, v=image.convert("I"))
    return Image.merge("LA", (grey, shown.convert("L")))


def flat(image: Image.Image) -> Image.Image:
    """The image as L or RGB, with what is transparent on white."""
    if not image.has_transparency_data:
        mode = "L" if image.mode in {"1", "L"} else "RGB"
        return image if image.mode == mode else image.convert(mode)  # convert() copies even then
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white.convert("L") if image.mode in {"L", "LA"} else white
