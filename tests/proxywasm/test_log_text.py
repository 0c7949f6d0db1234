"""What modules say of themselves is printable by the time that it is logged or raised."""

from __future__ import annotations

import pytest

from tests.proxywasm.guest import OUT_U32, Guest
from twisted_wasmproxy.proxywasm import PluginError
from twisted_wasmproxy.runtimes import get_engine

NASTY = "\x1b]0;owned\x07\r\x9b31m\u202e"
ESCAPED = r"\x1b]0;owned\x07\r\x9b31m\u202e"


def wat(text: str) -> str:
    """Return a text as it may stand in a string or an identifier in quotes of WAT."""
    return "".join(f"\\{byte:02x}" for byte in text.encode())


def clean(bench) -> list[str]:
    texts = bench.texts()
    assert all(line.isprintable() for text in texts for line in text.replace("\t", " ").split("\n"))
    return texts


@pytest.mark.parametrize("fd", [1, 2])
def test_lines_of_guests(bench, fd):
    guest = Guest()
    address, size = guest.data(NASTY.encode())
    table, _ = guest.data(address.to_bytes(4, "little") + size.to_bytes(4, "little"))
    guest.on(
        "proxy_on_configure",
        guest.call("proxy_log", 2, NASTY.encode()),
        guest.call("fd_write", fd, table, 1, OUT_U32, module="wasi_snapshot_preview1"),
    )
    bench.load(guest)
    assert [text for _, text in bench.lines()] == [ESCAPED] * 2
    clean(bench)


def test_faults_that_are_told_of_a_guest(bench):
    guest = Guest()
    guest.on(
        "proxy_on_request_headers",
        guest.call("proxy_add_header_map_value", 0, NASTY.encode(), b"x"),
        guest.call("proxy_send_local_response", 403, b"", b"", b"\1\0\0\0", 0xFFFFFFFF),
    )
    _, stream = bench.stream(guest)
    stream.request_head()
    assert sum("the module" in text for text in clean(bench)) == 2


def test_the_message_and_the_frames_of_a_trap(bench):
    guest = Guest()
    text = NASTY.encode("utf-16-le")
    data, _ = guest.data(len(text).to_bytes(4, "little") + text)
    abort = guest.call("abort", data + 4, data + 4, 1, 1)
    guest.on("proxy_on_request_headers", abort.code)
    loaded, stream = bench.stream(guest)
    stream.request_head()
    assert any(f"abort: {ESCAPED}" in text for text in clean(bench))
    assert loaded.plugin.keeper.figures()["last_failure"].isprintable()


def test_names_of_functions_in_a_backtrace(bench):
    if get_engine(bench.engine).name != "wasmtime":
        pytest.skip("the assembler of this engine takes no such names")
    guest = Guest()
    guest.extra = f'(func $"{wat(NASTY)}" unreachable)'
    guest.on("proxy_on_request_headers", f'(call $"{wat(NASTY)}")')
    _, stream = bench.stream(guest)
    stream.request_head()
    assert any("owned" in text for text in clean(bench))


def test_names_of_imports(bench):
    unknown = f'(module (import "env" "{wat(NASTY)}" (func)) (memory (export "memory") 1)'
    with pytest.raises(PluginError) as caught:
        bench.load(unknown + '(func (export "proxy_abi_version_0_2_1")))')
    assert f"env.{ESCAPED} () -> (): no such host function" in str(caught.value)
    assert str(caught.value).isprintable()
    bench.load(unknown + '(func (export "proxy_abi_version_0_2_1")))', lax_imports=True)
    clean(bench)


def test_what_an_engine_says(bench):
    begin = f'(module (import "env" "{wat(NASTY)}" (memory 1))'
    with pytest.raises(PluginError) as caught:
        bench.load(begin + '(func (export "proxy_abi_version_0_2_1")))', lax_imports=True)
    assert "owned" in str(caught.value)
    assert str(caught.value).isprintable()
