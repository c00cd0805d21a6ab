"""API keys as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsvc.auth import credentials
from imgsvc.auth.credentials import Credential


def test_a_key_is_read_as_it_was_made() -> None:
    made = credentials.new()
    assert credentials.parse(str(made)) == made
    assert str(made).startswith(f"isk_{made.id}_")
    assert made.fits(made.digest)


def test_keys_differ_in_both_parts_and_have_256_bits() -> None:
    made = [credentials.new() for _ in range(1000)]
    assert len({key.id for key in made}) == len({key.secret for key in made}) == 1000
    assert {len(key.secret) for key in made} == {43}  # 32 bytes in base64url


def test_only_the_same_secret_fits() -> None:
    made = credentials.new()
    assert not credentials.new().fits(made.digest)
    assert not made.fits(made.digest[:-1])
    assert not made.fits(b"")


def test_the_digest_says_nothing_of_the_secret() -> None:
    made = credentials.new()
    assert len(made.digest) == 32
    assert made.secret.encode() not in made.digest


@given(st.text() | st.from_regex(r"isk_[0-9a-f]{15,17}_[\w-]{42,44}"))
def test_any_text_is_read_or_is_none(text: str) -> None:
    found = credentials.parse(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize("end", ["\n", " ", "\x00", "é"])
def test_a_key_with_something_behind_it_is_none(end: str) -> None:
    assert credentials.parse(f"{Credential('0' * 16, 'x' * 43)}{end}") is None
