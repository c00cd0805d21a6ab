"""What a worker process is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imgsvc.domain.model import Recipe


@dataclass(frozen=True, slots=True)
class Task:
    """One file to encode into another."""

    source: Path
    target: Path
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Result:
    """A file was encoded; its bytes are in the target."""

    bytes_out: int
    format: str
    width: int
    height: int
    note: str
    ms: int  # how long the worker took


@dataclass(frozen=True, slots=True)
class Refusal:
    """The image cannot be encoded.

    Workers answer with codes: a pickled exception could carry anything, or not unpickle.
    """

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class NeedsMemory:
    """Nothing was decoded: run the task again with this much of the memory budget."""

    needed_bytes: int


Answer = Result | Refusal | NeedsMemory
