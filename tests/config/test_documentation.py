"""docs/configuration.md says everything that can be configured, with the true defaults, and its examples load."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from tests.config.support import EMPTY_MODULE, MINIMAL
from twisted_wasmproxy import config
from twisted_wasmproxy.accesslog.format import FIELDS, HEADER_FIELDS, JSON_MEMBERS
from twisted_wasmproxy.config.document import compose
from twisted_wasmproxy.config.loader import PRIVATE_CLIENTS
from twisted_wasmproxy.config.model import (
    AccessConfig,
    AccessLogConfig,
    AdminConfig,
    CacheConfig,
    CacheKeyConfig,
    CacheRules,
    DiskCacheConfig,
    HeadersConfig,
    HealthConfig,
    LimitsConfig,
    ListenerConfig,
    RemapConfig,
    RestartConfig,
    ServerConfig,
    TimeoutsConfig,
    UpstreamConfig,
    UpstreamTLSConfig,
    VMConfig,
    WasmFilterConfig,
)
from twisted_wasmproxy.config.reader import Place, Report, keys_of
from twisted_wasmproxy.config.schema import TOP
from twisted_wasmproxy.config.values import duration, size

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def tables() -> dict[str, dict[str, str]]:
    """Return the documented defaults by section and key; a section is also known by the names under its heading."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        rows = {
            row[1]: row[2].strip() for row in re.finditer(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", body, flags=re.MULTILINE)
        }
        also = re.findall(r"\bAlso ((?:`[^`]+`(?:, )?)+)\.", body)
        names = re.findall(r"`([^`]+)`", " ".join([heading, *also]))
        for name in names or [""] * (heading == "The file"):
            found[name] = found.get(name, {}) | rows
    return found


TABLES = tables()


@pytest.mark.parametrize("key", sorted(set(keys_of(TOP))))
def test_every_key_has_its_row(key: str) -> None:
    parent, _, name = key.rpartition(".")
    assert name in TABLES[parent]


@pytest.mark.parametrize("section", TABLES)
def test_nothing_is_documented_that_cannot_be_configured(section: str) -> None:
    known = set(keys_of(TOP))
    for name in TABLES[section]:
        assert (f"{section}.{name}" if section else name) in known


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("limits", LimitsConfig),
        ("timeouts", TimeoutsConfig),
        ("listeners[]", ListenerConfig),
        ("listeners[].access", AccessConfig),
        ("upstreams.*", UpstreamConfig),
        ("upstreams.*.servers[]", ServerConfig),
        ("upstreams.*.health", HealthConfig),
        ("upstreams.*.tls", UpstreamTLSConfig),
        ("remap[]", RemapConfig),
        ("filters[]", WasmFilterConfig),
        ("filters[].vm_config", VMConfig),
        ("filters[].vm_config.restart", RestartConfig),
        ("headers", HeadersConfig),
        ("cache", CacheConfig),
        ("cache.disk", DiskCacheConfig),
        ("remap[].cache", CacheRules),
        ("remap[].cache.key", CacheKeyConfig),
        ("admin", AdminConfig),
        ("access_log", AccessLogConfig),
    ],
)
def test_documented_defaults_are_those_of_the_model(section: str, model: type) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    compared = 0
    for name, text in TABLES[section].items():
        default = defaults.get(name, dataclasses.MISSING)
        value = re.fullmatch(r"`([^`]+)`", text)
        if value is None or isinstance(default, tuple | type(dataclasses.MISSING)):
            continue
        compared += 1
        assert parsed(value[1], default) == default, name
    if any(isinstance(default, bool | int | float) for default in defaults.values()):
        assert compared


def parsed(text: str, like: object) -> object:
    root, _ = compose(text.encode(), "documentation")
    place = Place.root(root, Path("documentation"), Report())
    if isinstance(like, bool) or like is None:
        return yaml.safe_load(text)
    if isinstance(like, float):
        return duration()(place)
    if isinstance(like, int) and not isinstance(like, bool):
        return like if text == getattr(like, "name", "").lower() else size()(place)
    return text


def test_the_private_networks_are_documented() -> None:
    documented = re.findall(r"`([^`]+)`", TABLES["listeners[].access"]["allow_clients"])
    assert documented == [str(network).removesuffix("/128") for network in PRIVATE_CLIENTS]


@pytest.mark.parametrize("field", [*FIELDS, *HEADER_FIELDS])
def test_every_field_of_the_access_log_is_documented(field: str) -> None:
    section = TEXT.partition("| fields | meaning |")[2]
    assert f"`{field}`" in section or f"`{{Header}}{field}`" in section


@pytest.mark.parametrize("member", JSON_MEMBERS)
def test_every_member_of_a_json_line_is_documented(member: str) -> None:
    assert f"`{member}`" in TEXT.partition("A `json` line")[2]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_load(tmp_path: Path, example: str) -> None:
    for name in ("headers.wasm", "auth.wasm", "myfilter.wasm"):
        (tmp_path / name).write_bytes(EMPTY_MODULE)
    plugin_file = next(example for example in EXAMPLES if example.startswith("config:"))
    (tmp_path / "coraza.yaml").write_text(plugin_file)
    path = tmp_path / "proxy.yaml"
    whole = example.startswith(("listeners:", "config:"))
    path.write_text(example if whole else MINIMAL + example)
    assert config.load(path).warnings == ()
