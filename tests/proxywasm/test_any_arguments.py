"""Whatever arguments a guest passes, a host call answers a status: it neither raises nor fails the VM."""

from __future__ import annotations

import random

import pytest

from tests.proxywasm.guest import Guest
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.messages import Response
from twisted_wasmproxy.proxywasm.abi import IMPORTS, WASI_MODULES
from twisted_wasmproxy.proxywasm.errors import VMFailed

FUNCTIONS = [key for key in IMPORTS if key[0] != WASI_MODULES[1]]
ENDING = {"proc_exit", "abort"}
INTERESTING = [*range(10), 16, 255, 1024, 0x8000, 0x40000, 0x7FFFF, 0x80000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def wrapper(module, name):
    entry = IMPORTS[module, name]
    params = "".join(f" (param {kind})" for kind in entry.params)
    operands = " ".join(f"(local.get {n})" for n in range(len(entry.params)))
    results = f" (result {' '.join(entry.results)})" if entry.results else ""
    return f'(func (export "any {module} {name}"){params}{results} (call ${module}.{name} {operands}))'


@pytest.mark.parametrize("place", ["request_headers", "response_body", "root"])
def test_any_arguments(bench, place):
    guest = Guest("0.2.100")
    for module, name in FUNCTIONS:
        guest.imports[module, name] = IMPORTS[module, name].params, IMPORTS[module, name].results
    guest.extra = "".join(wrapper(*key) for key in FUNCTIONS)
    guest.on("proxy_on_request_headers")
    guest.on("proxy_on_response_body")
    loaded, stream = bench.stream(guest, memory_limit=16 << 20)
    stream.request.headers.add(b"a", b"b")
    stream.request_head(False)
    stream.response = Response(200, Headers([(b"a", b"b")]))
    if place == "response_body":
        stream.response_data(b"some body")
    context = loaded.plugin.root if place == "root" else stream.filter
    choose = random.Random(place).choice  # the same arguments in every run
    vm = loaded.vm
    for module, name in FUNCTIONS:
        function = vm._instance.function(f"any {module} {name}")
        for _ in range(60):
            arguments = [choose(INTERESTING) for _ in IMPORTS[module, name].params]
            if name in ENDING:
                continue
            result = vm.call(context, function, *arguments)
            assert result is None or 0 <= result <= 76, (name, arguments, result)
    assert vm.failed is None
    assert not any("failed" in text for text in bench.texts())
    with pytest.raises(VMFailed):
        vm.call(context, vm._instance.function("any env abort"), *[0xFFFFFFFF] * 4)
