"""What a picture looks like to a person: upright and in sRGB, however its file says so.

Made with Pillow's own conversions and none of the service's code, so that it can judge that code.
"""

from __future__ import annotations

from functools import cached_property
from io import BytesIO

from PIL import Image, ImageChops, ImageCms, ImageOps, ImageSequence, ImageStat

_TELLING = ("xmp", "XML:com.adobe.xmp", "comment", "Comment", "photoshop", "iptc")
_SKETCH = (24, 24)
_ALIKE = 8.0  # of 255, on average: compression moves less, turning or inverting moves much more


class Look:
    """A picture, looked at.

    Args:
        data: the file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    @cached_property
    def shown(self) -> Image.Image:
        """The first frame as RGBA."""
        file = self._open()
        image = ImageOps.exif_transpose(file)
        if image.mode == "I;16":
            image = image.point(lambda value: value * (1 / 257)).convert("L")
        if profile := file.info.get("icc_profile"):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, srgb) or image
        return image.convert("RGBA")

    @cached_property
    def durations_ms(self) -> list[int]:
        """How long each frame is shown; one entry for a still picture."""
        return [
            int(frame.info.get("duration", 0)) for frame in ImageSequence.Iterator(self._open())
        ]

    @property
    def metadata(self) -> list[str]:
        """What the file tells beside its pixels: EXIF with its GPS, XMP, comments."""
        image = self._open()
        exif = ["exif"] if image.info.get("exif") or image.getexif() else []
        return exif + [name for name in _TELLING if image.info.get(name)]

    def resembles(self, other: Look) -> bool:
        """Whether a person would call it the same picture, the same way up."""
        difference = ImageChops.difference(self._sketch, other._sketch)
        return max(ImageStat.Stat(difference).mean) < _ALIKE

    def as_transparent_as(self, other: Look) -> bool:
        """Whether every pixel lets as much shine through."""
        own, others = self.shown.getchannel("A"), other.shown.getchannel("A")
        return ImageChops.difference(own, others).getbbox() is None

    @cached_property
    def _sketch(self) -> Image.Image:
        white = Image.new("RGBA", self.shown.size, "white")
        white.alpha_composite(self.shown)
        return white.convert("RGB").resize(_SKETCH, Image.Resampling.BOX)

    def _open(self) -> Image.Image:
        return Image.open(BytesIO(self._data))
