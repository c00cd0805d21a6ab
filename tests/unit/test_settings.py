"""Settings: one order of precedence, and a mistake is told by name before anything starts."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from imgsvc.runtime.settings import PLAIN_NAMES, Settings, SettingsError, load, show
from imgsvc.runtime.settings.reference import reference
from tests.unit.operator import complaint, with_env

ROOT = Path(__file__).parents[2]
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()

ISSUER = {
    "IMGSVC_AUTH__OAUTH_ISSUER": "https://issuer.example",
    "IMGSVC_AUTH__OAUTH_AUDIENCE": "https://imgsvc.example",
    "IMGSVC_AUTH__OAUTH_JWKS_URL": "https://issuer.example/jwks",
}

pytestmark = pytest.mark.usefixtures("nothing_set")

# Each run sets what it needs itself.
many_times = hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50
)


def with_file(text: str, **variables: str) -> Settings:
    Path("config.toml").write_text(text)
    return with_env(**variables)


def plain(value: Any) -> Any:
    """A value as a test writes it: no secret, no tuple, no path."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, int | float) or value is None else str(value)


def complaint_about(text: str, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        with_file(text, **variables)
    return str(caught.value)


# Where values come from.


def test_nothing_set_means_the_defaults() -> None:
    assert load() == Settings()


@many_times
@given(
    st.integers(1, 65535),
    st.integers(1),
    st.floats(0, 1e9, exclude_min=True),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
)
def test_numbers_come_through_the_environment_as_they_are(
    port: int, limit: int, seconds: float, enabled: bool, jitter: float
) -> None:
    made = with_env(
        IMGSVC_HTTP__PORT=str(port),
        IMGSVC_FETCH__MAX_BYTES=str(limit),
        IMGSVC_FETCH__TOTAL_S=repr(seconds),
        IMGSVC_RATELIMIT__ENABLED=str(enabled).lower(),
        IMGSVC_WEBHOOK__JITTER=repr(jitter),
    )
    assert (made.http.port, made.fetch.max_bytes, made.fetch.total_s) == (port, limit, seconds)
    assert (made.ratelimit.enabled, made.webhook.jitter) == (enabled, jitter)


@many_times
@given(
    st.lists(st.ip_addresses().map(ip_network)),
    st.lists(st.integers(1, 65535)),
    st.lists(st.binary(min_size=24, max_size=64)),
)
def test_lists_come_through_the_environment_as_json(
    networks: list[Any], ports: list[int], keys: list[bytes]
) -> None:
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    made = with_env(
        IMGSVC_NET__ALLOW=json.dumps([str(network) for network in networks]),
        IMGSVC_NET__PORTS=json.dumps(ports),
        IMGSVC_WEBHOOK__SECRETS=json.dumps(secrets),
    )
    assert (list(made.net.allow), list(made.net.ports)) == (networks, ports)
    assert [secret.get_secret_value() for secret in made.webhook.secrets] == secrets


@many_times
@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1))
def test_texts_come_through_the_environment_as_they_are(text: str) -> None:
    made = with_env(IMGSVC_REDIS__PASSWORD=text, IMGSVC_NET__USER_AGENT=text)
    assert made.redis.password
    assert (made.redis.password.get_secret_value(), made.net.user_agent) == (text, text)


# The name, what it may hold, and something else that it may hold.
EXAMPLES = {
    "PORT": ("8080", "8081"),
    "MONGO_URI": ("mongodb://one:27017", "mongodb://two:27017"),
    "MONGODB_URI": ("mongodb://one:27017", "mongodb://two:27017"),
    "REDIS_URL": ("redis://one", "rediss://u:p%40@two:1/2"),
    "REDIS_HOST": ("one", "two"),
    "REDIS_PORT": ("1", "2"),
    "GCP_PROJECT_ID": ("one", "two"),
    "GCP_BUCKET_NAME": ("bucket-one", "bucket-two"),
    "GCP_KEY_BASE64": ("b25l", "dHdv"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("/one.json", "/two.json"),
    "STORAGE_EMULATOR_HOST": ("http://one:1", "http://two:2"),
    "WEBHOOK_RETRY_ATTEMPTS": ("3", "4"),
    "WEBHOOK_RETRY_DELAY": ("100", "200"),
}


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_plain_names_override_the_prefixed_which_override_the_file(name: str) -> None:
    section, key = PLAIN_NAMES[name]
    prefixed = f"IMGSVC_{section}__{key}".upper()
    strong, weak = EXAMPLES[name]
    of_the_file = with_file(f"[{section}]\n{key} = {json.dumps(weak)}")
    assert str(plain(getattr(getattr(of_the_file, section), key))) == weak
    for variables in ({prefixed: strong}, {name: strong, prefixed: weak}):
        made = with_env(**variables)
        assert str(plain(getattr(getattr(made, section), key))) == strong


def test_a_source_that_sets_one_key_leaves_the_others_of_its_section() -> None:
    made = with_file(
        '[redis]\nhost = "file"\nport = 1\nwindow = 2',
        IMGSVC_REDIS__WINDOW="3",
        REDIS_HOST="plain",
    )
    redis = made.redis
    assert (redis.host, redis.port, redis.window, redis.db) == ("plain", 1, 3, 0)


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_an_empty_plain_name_is_not_set(name: str) -> None:
    assert with_env(**{name: ""}) == Settings()


def test_an_emulator_may_be_given_without_a_scheme() -> None:
    assert with_env(STORAGE_EMULATOR_HOST="gcs:4443").gcs.emulator_host == "http://gcs:4443"


def test_the_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[http]\nport = 4000")
    (tmp_path / "config.toml").write_text("[http]\nport = 5000")
    assert load().http.port == 5000
    assert load(tmp_path / "other.toml").http.port == 4000
    assert with_env(IMGSVC_CONFIG="other.toml").http.port == 4000


@pytest.mark.skipif(not (ROOT / "config.toml").exists(), reason="there is none yet")
def test_the_file_in_the_repository_says_the_defaults() -> None:
    text = (ROOT / "config.toml").read_text()
    assert load(ROOT / "config.toml") == Settings()
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        assert f"\n[{section}]" in text
        for key in field.annotation.model_fields:
            assert f"\n{key} =" in text or f"\n# {key} =" in text, f"[{section}] {key}"


def test_the_reference_is_that_of_the_settings() -> None:
    document = (ROOT / "docs" / "settings.md").read_text()
    assert document == reference(), "run `make settings`"
    for section, field in Settings.model_fields.items():
        for key, each in field.annotation.model_fields.items():
            assert each.description, f"[{section}] {key}"


def test_settings_do_not_change() -> None:
    made = load()
    with pytest.raises(ValueError, match="frozen"):
        made.http.port = 1
    with pytest.raises(ValueError, match="frozen"):
        made.http = made.http


# Mistakes.


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "http", "integer"),
        ("PORT", "65536", "65535"),
        ("REDIS_PORT", "0", "greater than or equal to 1"),
        ("WEBHOOK_RETRY_ATTEMPTS", "0", "greater than or equal to 1"),
        ("WEBHOOK_RETRY_DELAY", "soon", "integer"),
        ("GCP_BUCKET_NAME", "x", "at least 3"),
        ("IMGSVC_HTTP__PORT", "0x10", "integer"),
        ("IMGSVC_FETCH__TOTAL_S", "-1", "greater than 0"),
        ("IMGSVC_FETCH__TOTAL_S", "nan", "should be"),
        ("IMGSVC_FETCH__TOTAL_S", "inf", "finite"),
        ("IMGSVC_FETCH__MAX_REDIRECTS", "21", "20"),
        ("IMGSVC_LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("IMGSVC_LOG__FORMAT", "xml", "'auto', 'json' or 'console'"),
        ("IMGSVC_AUTH__MODE", "password", "'none', 'keys', 'oauth' or 'keys+oauth'"),
        ("IMGSVC_AUTH__OAUTH_ALGORITHMS", "HS", "'RS', 'PS', 'ES' or 'EdDSA'"),
        ("IMGSVC_AUTH__OAUTH_LEEWAY_S", "61", "less than or equal to 60"),
        ("IMGSVC_AUTH__OAUTH_JWKS_URL", "http://example.com/jwks", "https://"),
        ("IMGSVC_AUTH__OAUTH_JWKS_URL", "file:///etc/keys", "https://"),
        ("IMGSVC_RATELIMIT__IMAGES_PER_MINUTE", "-1", "greater than or equal to 0"),
        ("IMGSVC_RATELIMIT__ENABLED", "maybe", "boolean"),
        ("IMGSVC_NET__ALLOW", "10.0.0.0/8", "JSON"),
        ("IMGSVC_NET__ALLOW", '["10.0.0.1/8"]', "network"),
        ("IMGSVC_NET__PORTS", "[80, 443", "JSON"),
        ("IMGSVC_NET__PORTS", "[0]", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_and_what_is_allowed(
    name: str, value: str, allowed: str
) -> None:
    said = complaint(**{name: value})
    assert name in said
    assert allowed in said
    assert value.strip('[]"') in said


def test_a_wrong_value_in_the_file_is_told_with_its_place() -> None:
    said = complaint_about('[http]\nport = "x"')
    assert "config.toml [http] port = 'x'" in said
    assert "IMGSVC_HTTP__PORT = 'y'" in complaint_about('[http]\nport = "x"', IMGSVC_HTTP__PORT="y")


def test_all_mistakes_are_told_at_once() -> None:
    said = complaint(PORT="x", IMGSVC_FETCH__TOTAL_S="0", REDIS_PORT="y")
    assert all(name in said for name in ("PORT = 'x'", "IMGSVC_FETCH__TOTAL_S", "REDIS_PORT"))


@pytest.mark.parametrize(
    "variables",
    [
        {"IMGSVC_WEBHOOK__SECRETS": '["hunter2"]'},
        {"IMGSVC_WEBHOOK__SECRETS": '["whsec_hunter2"]'},
        {"IMGSVC_WEBHOOK__SECRETS": '["whsec_hunter2!"]'},
        {"IMGSVC_WEBHOOK__SECRETS": "hunter2"},
        {"IMGSVC_REDIS__PASSWORDS": "hunter2"},
        {"IMGSVC_REDSI__PASSWORD": "hunter2"},
    ],
    ids=str,
)
def test_a_wrong_secret_is_named_and_not_shown(variables: dict[str, str]) -> None:
    said = complaint(**variables)
    assert "hunter2" not in said
    assert next(iter(variables)) in said


@pytest.mark.parametrize(
    "text",
    [
        '[webhook]\nsecrets = ["hunter2"]',
        '[webhook]\nsecrets = "hunter2"',
        '[redis]\npassword = ["hunter2"]',
        '[[redis]]\npassword = "hunter2"',
        'redis = "hunter2"',
        '[mongo]\nuri = ["mongodb://me:hunter2@host"]',
        '[gcs]\nkey_base64 = ["hunter2"]',
        '[redis]\npasswrod = "hunter2"',
    ],
    ids=str,
)
def test_a_wrong_secret_in_the_file_is_not_shown(text: str) -> None:
    said = complaint_about(text)
    assert "hunter2" not in said
    assert "config.toml" in said


@pytest.mark.parametrize(
    ("variables", "known"),
    [
        ({"IMGSVC_HTTP__PROT": "3000"}, "port"),
        ({"IMGSVC_FETCH__MAXBYTES": "1"}, "max_bytes"),
        ({"IMGSVC_HTPP__PORT": "3000"}, "http"),
    ],
    ids=str,
)
def test_an_unknown_name_is_told_with_those_that_are_known(
    variables: dict[str, str], known: str
) -> None:
    said = complaint(**variables)
    assert next(iter(variables)) in said
    assert known in said


@pytest.mark.parametrize("text", ["[http]\nprot = 1", "[htpp]\nport = 1", "port = 1", "port"])
def test_an_unknown_name_in_the_file_is_refused(text: str) -> None:
    assert "config.toml" in complaint_about(text)


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    assert "nowhere.toml: no such file" in complaint(IMGSVC_CONFIG="nowhere.toml")
    with pytest.raises(SettingsError, match="no such file"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com"])
def test_other_machines_are_let_in_only_if_that_is_said(host: str) -> None:
    said = complaint(IMGSVC_HTTP__HOST=host)
    assert host in said
    assert "IMGSVC_AUTH__MODE=none" in said
    assert with_env(IMGSVC_HTTP__HOST=host, IMGSVC_AUTH__MODE="none").http.host == host


@pytest.mark.parametrize("mode", ["keys", "oauth", "keys+oauth"])
def test_other_machines_are_let_in_if_they_are_asked_who_they_are(mode: str) -> None:
    made = with_env(IMGSVC_HTTP__HOST="0.0.0.0", IMGSVC_AUTH__MODE=mode, **ISSUER)
    assert (made.auth.takes_keys, made.auth.takes_tokens) == ("keys" in mode, "oauth" in mode)
    assert "IMGSVC_AUTH__MODE=keys" in complaint(IMGSVC_HTTP__HOST="0.0.0.0")


@pytest.mark.parametrize("mode", ["oauth", "keys+oauth"])
@pytest.mark.parametrize("missing", ["ISSUER", "AUDIENCE", "JWKS_URL"])
def test_tokens_need_to_know_their_issuer(mode: str, missing: str) -> None:
    said = {name: value for name, value in ISSUER.items() if not name.endswith(missing)}
    assert f"auth.oauth_{missing.lower()}:" in complaint(IMGSVC_AUTH__MODE=mode, **said)
    assert with_env(IMGSVC_AUTH__MODE="keys", **said).auth.mode == "keys"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_saying(host: str) -> None:
    assert with_env(IMGSVC_HTTP__HOST=host).http.host == host


# What is in force.


def test_what_is_shown_names_every_setting_and_no_secret() -> None:
    made = with_env(
        IMGSVC_REDIS__PASSWORD="hunter2",
        MONGO_URI="mongodb://me:hunter2@host",
        GCP_KEY_BASE64="hunter2",
        IMGSVC_WEBHOOK__SECRETS=json.dumps([SECRET]),
        IMGSVC_NET__ALLOW='["10.1.0.0/16"]',
    )
    shown = show(made)
    assert "hunter2" not in shown
    assert SECRET not in shown
    assert 'allow = ["10.1.0.0/16"]' in shown
    for section in Settings.model_fields:
        assert f"[{section}]" in shown
        for key in type(getattr(made, section)).model_fields:
            assert f"\n{key} = " in shown or f"\n# {key} unset" in shown


def test_what_is_shown_can_be_read_again_if_it_holds_no_secret(tmp_path: Path) -> None:
    made = with_env(IMGSVC_NET__ALLOW='["10.1.0.0/16"]', PORT="4000")
    shown = show(made).replace('uri = "**********"', f"uri = {json.dumps(plain(made.mongo.uri))}")
    (tmp_path / "shown.toml").write_text(shown)
    assert load(tmp_path / "shown.toml") == made
