"""Whatever a decoder or an encoder raises becomes one of the service's own errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from imgsvc.domain.errors import ErrorCode, ServiceError
from imgsvc.imaging.admit import Limits, NeedsMemoryError, too_many_pixels


@contextmanager
def while_decoding(limits: Limits) -> Iterator[None]:
    """Blame the image for whatever is raised: hostile files can make a decoder raise anything.

    Raises:
        ServiceError: as raised inside; TOO_MANY_PIXELS or IMAGE_CORRUPT for everything else.
        NeedsMemoryError: as raised inside.
    """
    stock, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limits.max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # Damage outside the pixels is no reason to refuse an image.
            warnings.filterwarnings("ignore", "Image appears to be a malformed MPO")
            warnings.filterwarnings("ignore", "(Possibly c|C)orrupt EXIF data")
            warnings.filterwarnings("ignore", "Palette images with Transparency")
            yield
    except (ServiceError, NeedsMemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_many_pixels(limits) from None
    except MemoryError:
        raise _out_of_memory() from None
    except Exception:  # noqa: BLE001
        raise ServiceError(ErrorCode.IMAGE_CORRUPT) from None
    finally:
        Image.MAX_IMAGE_PIXELS = stock


@contextmanager
def while_encoding() -> Iterator[None]:
    """Blame ourselves for whatever is raised, unless memory ran out.

    Raises:
        ServiceError: as raised inside; TOO_MANY_PIXELS if memory ran out, INTERNAL for everything
            else, with the cause chained for the log.
    """
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        # libwebp's code 1 is VP8_ENC_ERROR_OUT_OF_MEMORY (webp/encode.h).
        if isinstance(error, MemoryError) or "encoding error 1" in str(error):
            raise _out_of_memory() from None
        raise ServiceError(ErrorCode.INTERNAL) from error


def _out_of_memory() -> ServiceError:
    return ServiceError(
        ErrorCode.TOO_MANY_PIXELS, "The image needs more memory than a worker may use."
    )
