"""MongoDB's connection string names the database, and a wrong one is told without its password."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymongo import MongoClient

from imgsvc.runtime import settings
from imgsvc.runtime.settings import SettingsError, load, mongo_uri
from tests.unit.operator import complaint, with_env

pytestmark = pytest.mark.usefixtures("nothing_set")

NAMES_ONE = [
    "mongodb://localhost:27017/image-processing",
    "mongodb://localhost/image-processing",
    "mongodb://a:1,b:2,c:3/image-processing?replicaSet=rs0&w=majority",
    "mongodb://user:p%40ss%2Fword@db/image-processing?authSource=admin",
    "mongodb+srv://user:hunter2@cluster0.example.invalid/image-processing?retryWrites=true",
    "mongodb://%2Ftmp%2Fmongodb-27017.sock/image-processing",
    "mongodb://[::1]:27017/image-processing",
    "mongodb://[fe80::1%25eth0],[::1]/image-processing",
    "mongodb://db/image%2Dprocessing",
    " mongodb://localhost:27017/image-processing\n",
]
NAMES_NONE = [
    "mongodb://localhost",
    "mongodb://localhost/",
    "mongodb://localhost?replicaSet=rs0",
    "mongodb://localhost/?replicaSet=rs0",
    "mongodb+srv://cluster0.example.invalid",
    "mongodb://user:hunter2@localhost/?authSource=image-processing",
]
WRONG = [
    "localhost:27017",
    "http://user:hunter2@db/x",
    "MONGODB://user:hunter2@db/x",
    '"mongodb://user:hunter2@db/x"',
    "mongodb://",
    "mongodb:///x",
    "mongodb://user:hunter2@/x",
    "mongodb://user:hunter2@db,/x",
    "mongodb://user:hunter2@db:port/x",
    "mongodb://user:hunter2@db:/x",
    "mongodb://user:hunter2@db:0/x",
    "mongodb://user:hunter2@db:65536/x",
    "mongodb://user:hunter2@db:99999999999999999999/x",
    "mongodb://user:hunter2@db:27017:27018/x",
    "mongodb://user:hun/ter2@db/x",
    "mongodb://user:12/hunter2@db/x",
    "mongodb://user:hun?ter2@db/x",
    "mongodb://user:hun@ter2@db/x",
    "mongodb://user:hun:ter2@db/x",
    "mongodb://user:hunter2%@db/x",
    "mongodb://user:hunter2%zz@db/x",
    "mongodb://:hunter2@db/x",
    "mongodb://user:hunter2@d b/x",
    "mongodb://user:hunter2@d%20b/x",
    "mongodb://user:hunter2@::1/x",
    "mongodb://user:hunter2@[::1/x",
    "mongodb://user:hunter2@[::g]/x",
    "mongodb://user:hunter2@[::1]27017/x",
    "mongodb://user:hunter2@/tmp/mongodb-27017.sock/x",
    "mongodb://user:hunter2@db/x\x1b[31m",
    "mongodb://user:hunter2@db/x\udcff",
    "mongodb+srv://user:hunter2@db:27017/x",
    "mongodb+srv://user:hunter2@a,b/x",
    "mongodb+srv://user:hunter2@[::1]/x",
    "mongodb+srv://user:hunter2@/x",
    "mongodb://user:hunter2@db/x/y",
    "mongodb://user:hunter2@db/x.y",
    "mongodb://user:hunter2@db/x y",
    "mongodb://user:hunter2@db/x%24y",
    "mongodb://user:hunter2@db/x%00y",
    "mongodb://user:hunter2@db/" + "x" * 64,
    "mongodb://user:hunter2@db/" + "%C3%A9" * 32,
    "mongodb://user:hunter2@db/local",
]
WRONG_NAMES = ["", " ", "a b", "a/b", "a\\b", "a.b", 'a"b', "$a", "a*", "<a", "a>", "a:b", "a|b"]
WRONG_NAMES += ["a?", "x" * 64, "\u00e9" * 32, "local", "config"]


@pytest.mark.parametrize("uri", NAMES_ONE)
@pytest.mark.parametrize("name", ["MONGO_URI", "MONGODB_URI", "IMGSVC_MONGO__URI"])
def test_the_database_is_the_one_that_the_uri_names(name: str, uri: str) -> None:
    assert with_env(**{name: uri}).mongo.database == "image-processing"


@pytest.mark.parametrize("uri", NAMES_NONE)
def test_without_one_it_is_ours(uri: str) -> None:
    assert with_env(MONGO_URI=uri).mongo.database == "imgsvc"


def test_the_one_that_is_said_by_itself_holds(tmp_path: Path) -> None:
    uri = NAMES_ONE[0]
    assert with_env(MONGO_URI=uri, IMGSVC_MONGO__DATABASE="other").mongo.database == "other"
    assert with_env(MONGO_URI=uri, IMGSVC_MONGO__DATABASE="imgsvc").mongo.database == "imgsvc"
    (tmp_path / "config.toml").write_text('[mongo]\ndatabase = "third"')
    assert with_env(MONGO_URI=uri).mongo.database == "third"
    (tmp_path / "config.toml").write_text(f'[mongo]\nuri = "{uri}"')
    assert load().mongo.database == "image-processing"


def test_the_file_in_the_repository_says_none() -> None:
    config = Path(__file__).parents[2] / "config.toml"
    assert with_env(MONGO_URI=NAMES_ONE[0], IMGSVC_CONFIG=str(config)).mongo.database == (
        "image-processing"
    )


@pytest.mark.parametrize("uri", [uri.strip() for uri in NAMES_ONE + NAMES_NONE])
def test_the_driver_reads_it_likewise(uri: str) -> None:
    with MongoClient[dict[str, str]](uri, connect=False) as client:
        ours = mongo_uri.database_of(uri) or "none"
        assert client.get_default_database("none").name == ours


@pytest.mark.parametrize("uri", WRONG)
@pytest.mark.parametrize("name", ["MONGO_URI", "MONGODB_URI", "IMGSVC_MONGO__URI"])
def test_a_wrong_one_is_a_line_with_its_name_and_without_its_password(name: str, uri: str) -> None:
    said = complaint(**{name: uri})
    assert said.startswith(f"{name} = ***: ")
    assert "\n" not in said
    assert all(part not in said for part in ("hunter2", "hun", "ter2"))


def test_a_wrong_one_in_the_file_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[mongo]\nuri = "mongodb://user:hunter2@db:x/"')
    assert complaint().startswith("config.toml [mongo] uri = ***: has a port")


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_name_of_a_database_is_told(name: str) -> None:
    said = complaint(IMGSVC_MONGO__DATABASE=name)
    assert said.startswith("IMGSVC_MONGO__DATABASE = ")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["image-processing", "a_b", "A" * 63, "b\u00fccher", "a'b", "a,b"])
def test_a_name_that_mongodb_takes_is_taken(name: str) -> None:
    assert with_env(IMGSVC_MONGO__DATABASE=name).mongo.database == name


def test_both_names_may_say_the_same_and_not_different_things() -> None:
    uri = NAMES_ONE[0]
    assert with_env(MONGO_URI=uri, MONGODB_URI=uri).mongo.database == "image-processing"
    assert with_env(MONGO_URI=uri, MONGODB_URI=f"{uri} ").mongo.database == "image-processing"
    said = complaint(MONGO_URI=uri, MONGODB_URI="mongodb://user:hunter2@db/")
    assert said == "MONGO_URI and MONGODB_URI differ; leave one of them out"
    assert with_env(MONGO_URI="", MONGODB_URI=uri).mongo.database == "image-processing"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "[mongo] uri"),
        ({"IMGSVC_MONGO__URI": "x"}, "IMGSVC_MONGO__URI"),
        ({"imgsvc_mongo__uri_file": "/gone"}, "imgsvc_mongo__uri_file"),
        ({"MONGODB_URI": "x", "IMGSVC_MONGO__URI": "x"}, "MONGODB_URI"),
        ({"MONGO_URI": "", "MONGO_URI_FILE": "/gone"}, "MONGO_URI_FILE"),
    ],
    ids=str,
)
def test_a_setting_is_named_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert settings.name_of("mongo", "uri") == name


def test_a_service_link_is_not_what_says_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "tcp://10.0.0.1:6379")
    assert settings.name_of("redis", "port") == "[redis] port"


def test_what_is_wrong_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        with_env(MONGO_URI="nonsense")
