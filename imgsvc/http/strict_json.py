"""JSON as clients post it (RFC 8259), read in one way everywhere.

Stricter than the standard library: a name that stands twice in an object is refused, for what one
reader takes from such an object another does not; and so are numbers that are none and halves of
characters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from imgsvc.domain.errors import ErrorCode

_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a character, as an escape; two make one


class JsonError(ValueError):
    """The text cannot be used; what it says reads on from the place.

    Args:
        code: INVALID_JSON, or VALIDATION_FAILED for a name that is there twice.
        message: what is wrong, and the remedy.
        loc: the name that is there twice.
    """

    def __init__(self, code: ErrorCode, message: str, *loc: str) -> None:
        super().__init__(message)
        self.code = code
        self.loc = loc


def parse(text: bytes) -> Any:
    """What a JSON text says; a BOM in front says nothing.

    Raises:
        JsonError: it is no JSON, or not clear.
    """
    try:
        written = text.decode("utf-8-sig")
        said = json.loads(written, object_pairs_hook=_each_once, parse_constant=_no_number)
        if _HALF.search(written):
            json.dumps(said, ensure_ascii=False).encode()
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise _invalid(
            f"it is not UTF-8 from byte {error.start + 1} on; send "
            "UTF-8, or name the charset in the Content-Type"
        ) from None
    except UnicodeEncodeError:
        raise _invalid(
            r"\ud800 to \udfff stand for halves of characters, and one is alone"
        ) from None
    except RecursionError:
        raise _invalid("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise _invalid(str(error)) from None
    except ValueError:  # Python's limit for integers, whose size makes reading them slow
        raise _invalid("a number has thousands of digits; send it as a string") from None
    return said


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of one object."""
    said = dict(pairs)
    if len(said) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise JsonError(
            ErrorCode.VALIDATION_FAILED, "is there twice in one object; remove one of them", twice
        )
    return said


def _no_number(name: str) -> NoReturn:
    raise _invalid(f"{name} is no number of JSON")


def _invalid(why: str) -> JsonError:
    return JsonError(ErrorCode.INVALID_JSON, f"Invalid JSON: {why}")
