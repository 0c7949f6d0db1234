"""The example filters do what their sources promise, and are what their sources make."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.support.origin import Answer, Origin, running_origin
from tests.support.proxy import Proxy, StartFailed, fetch, running_proxy

EXAMPLES = Path(__file__).parents[2] / "examples"
BENCHMARKS = EXAMPLES.parent / "benchmarks"
TOKEN = ("X-Token", "open sesame")


@contextmanager
def served(example: Path, folder: Path, *, configuration: str | None = None) -> Iterator[tuple[Proxy, Origin]]:
    """Run an example's own configuration file, with nothing changed but the port of the listener and the origin's."""
    config = yaml.safe_load(example.read_text())
    del config["listeners"]
    (plugin,) = config["wasm"]
    code = plugin["vm_config"]["code"]["local"]
    code["filename"] = str(example.parent / code["filename"])
    if configuration is not None:
        plugin["configuration"] = configuration
    with running_origin() as origin:
        config["upstreams"]["origin"]["servers"] = [origin.url]
        with running_proxy(config, folder) as proxy:
            yield proxy, origin


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Origin]]:
    with served(EXAMPLES / "c_headers" / "headers.yaml", tmp_path_factory.mktemp("headers")) as pair:
        yield pair


def test_c_headers_edits_requests_and_responses(headers: tuple[Proxy, Origin]) -> None:
    proxy, origin = headers
    response = proxy.fetch("/", headers=[TOKEN, ("X-Edge", "not paris"), ("X-Edge", "nor this")])
    assert response.status == 200
    assert response.all("server") == ["wasm"]
    assert response.all("x-served-by") == ["twisted-wasmproxy"]
    assert origin.last.all("x-edge") == ["paris"]
    assert origin.last.all("x-token") == []


@pytest.mark.parametrize("sent", [[], [("X-Token", "open")], [("X-Token", "")]], ids=["none", "wrong", "empty"])
def test_c_headers_answers_403_without_the_token(headers: tuple[Proxy, Origin], sent: list[tuple[str, str]]) -> None:
    proxy, origin = headers
    before = len(origin.seen)
    response = proxy.fetch("/", headers=sent)
    assert (response.status, response.body) == (403, b"Forbidden\n")
    assert len(origin.seen) == before


def test_c_headers_refuses_a_rule_that_makes_no_sense(tmp_path: Path) -> None:
    example = EXAMPLES / "c_headers" / "headers.yaml"
    with (
        pytest.raises(StartFailed, match=r"request frobnicate x: y"),
        served(example, tmp_path, configuration="request add a: b\nrequest frobnicate x: y"),
    ):
        pass


@pytest.fixture(scope="module")
def redact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Origin]]:
    with served(EXAMPLES / "as_body" / "redact.yaml", tmp_path_factory.mktemp("redact")) as pair:
        yield pair


@pytest.mark.parametrize(
    "body",
    [b"my secret is PassWord, not pass", [b"my sec", b"ret is PassW", b"ord, not pass"]],
    ids=["length", "chunked"],
)
def test_as_body_redacts_words_across_chunks(redact: tuple[Proxy, Origin], body: bytes | list[bytes]) -> None:
    proxy, origin = redact
    origin.answer = lambda seen: Answer(body)
    response = proxy.fetch("/", headers=[TOKEN, ("Accept-Encoding", "gzip")])
    assert response.body == b"my ****** is ********, not pass"
    assert origin.last.all("accept-encoding") == []


def test_as_body_leaves_other_types_alone(redact: tuple[Proxy, Origin]) -> None:
    proxy, origin = redact
    origin.answer = lambda seen: Answer(b"\x00secret\xff", headers=[("Content-Type", "image/png")])
    assert proxy.fetch("/", headers=[TOKEN]).body == b"\x00secret\xff"


def test_as_body_answers_403_without_the_token(redact: tuple[Proxy, Origin]) -> None:
    proxy, origin = redact
    before = len(origin.seen)
    assert proxy.fetch("/").status == 403
    assert len(origin.seen) == before


def test_as_body_ends_without_an_error(tmp_path: Path) -> None:
    with served(EXAMPLES / "as_body" / "redact.yaml", tmp_path) as (proxy, _):
        assert proxy.fetch("/", headers=[TOKEN]).status == 200
        assert proxy.stop() in (0, -signal.SIGTERM)
        assert "Traceback" not in proxy.log
        assert "failed" not in proxy.log


@pytest.mark.skipif(find_spec("ziglang") is None, reason="needs the extra `build`")
@pytest.mark.parametrize(
    ("source", "module"),
    [
        (EXAMPLES / "c_headers" / "headers.c", EXAMPLES / "c_headers" / "headers.wasm"),
        (BENCHMARKS / "header_filter.c", BENCHMARKS / "header_filter.wasm"),
    ],
    ids=lambda path: path.name,
)
def test_the_modules_in_c_are_what_their_sources_make(source: Path, module: Path, tmp_path: Path) -> None:
    makefile = (EXAMPLES / "c_headers" / "Makefile").read_text()
    flags = re.search(r"^CFLAGS := (.*)$", makefile, re.MULTILINE)
    assert flags is not None
    built = tmp_path / "built.wasm"
    include = ["-I", EXAMPLES / "c_headers"]
    command = [sys.executable, "-m", "ziglang", "cc", *flags[1].split(), *include, source, "-o", built]
    subprocess.run([str(part) for part in command], check=True, timeout=120)
    assert built.read_bytes() == module.read_bytes()


def test_the_quickstart_serves_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = EXAMPLES / "quickstart" / "run.py"
    process = subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "curl -i http://127.0.0.1:8080/" in line:
                break
            if "listens on" in line:
                pytest.skip(line)
        else:
            pytest.fail("".join(said))
        response = fetch(8080)
        assert response.status == 200
        assert response.header("x-filtered-by") == "headers.wasm"
        assert b"x-greeting: hello from WebAssembly" in response.body
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
