"""Image bytes in, smaller image bytes out, and no harm done.

The steps: identify the format, survey the container, admit or refuse, decode (upright and in
sRGB), choose the formats to try, encode them, keep the smallest. Where encoding again gains
nothing, the original is kept and only its metadata is removed.

What each format becomes under the recipe ``keep``:

- JPEG stays JPEG, at quality 75 or below; one saved at that quality or less is only stripped.
- PNG stays PNG and lossless; APNG and GIF are lossless already and are only stripped.
- WebP stays WebP, lossless or lossy (75) as it came; AVIF stays AVIF (60, near WebP 75 to the eye).
- TIFF stays TIFF with all its pages, under deflate (bilevel pages under CCITT group 4).
- BMP becomes PNG: no shop displays a BMP.
"""

from __future__ import annotations

from imgsvc.domain.model import Recipe
from imgsvc.imaging import containers
from imgsvc.imaging.admit import Limits, admit_survey
from imgsvc.imaging.choose import best
from imgsvc.imaging.decode import decode
from imgsvc.imaging.encode import Encoded
from imgsvc.imaging.failures import while_decoding, while_encoding
from imgsvc.imaging.identify import identify


def encode(data: bytes, recipe: Recipe, limits: Limits) -> Encoded:
    """Make an image smaller without harm; the module says what that means for each format.

    Args:
        data: the whole file as it was fetched; its name and media type play no part.
        recipe: the wanted format and quality.
        limits: what the image may cost.

    Raises:
        ServiceError: NOT_AN_IMAGE, UNSUPPORTED_FORMAT, IMAGE_CORRUPT, TOO_MANY_PIXELS (also
            when memory ran out), TOO_MANY_FRAMES, or INTERNAL with the cause chained.
        NeedsMemoryError: ``limits.memory_bytes`` is too little; call again with more.
    """
    kind = identify(data)
    with while_decoding(limits):
        survey = containers.survey(kind, data)
        admit_survey(survey, limits)
        picture = decode(kind, containers.body(kind, data), survey, limits)
    with while_encoding():
        return best(data, picture, recipe)
