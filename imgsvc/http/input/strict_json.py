"""JSON from clients (RFC 8259), parsed more strictly than the standard library does.

A name that occurs twice in an object is refused, because parsers disagree about which one counts.
NaN, Infinity and lone surrogates are refused, too.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from imgsvc.domain.errors import ErrorCode

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape; two make a character


class JsonError(ValueError):
    """The text cannot be used.

    Args:
        code: INVALID_JSON, or VALIDATION_FAILED for a name that occurs twice.
        message: what is wrong, and the remedy; it continues a sentence that begins with the place.
        loc: the name that occurs twice.
    """

    def __init__(self, code: ErrorCode, message: str, *loc: str) -> None:
        super().__init__(message)
        self.code = code
        self.loc = loc


def parse(text: bytes) -> Any:
    """The value of a JSON text; a leading byte order mark is ignored.

    Raises:
        JsonError: the text is not JSON, or ambiguous.
    """
    try:
        decoded = text.decode("utf-8-sig")
        value = json.loads(decoded, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if _SURROGATE.search(decoded):
            json.dumps(value, ensure_ascii=False).encode()
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
    except ValueError:  # Python's limit for digits of an integer, because parsing many is slow
        raise _invalid("a number has thousands of digits; send it as a string") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these pairs, unless a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise JsonError(
            ErrorCode.VALIDATION_FAILED, "is there twice in one object; remove one of them", twice
        )
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is no number of JSON")


def _invalid(why: str) -> JsonError:
    return JsonError(ErrorCode.INVALID_JSON, f"Invalid JSON: {why}")
