"""Why an embedded server cannot run."""

from __future__ import annotations


class EmbeddedError(RuntimeError):
    """An embedded server cannot run; the message says which, why, and what to do."""
