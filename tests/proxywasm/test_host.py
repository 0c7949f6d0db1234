"""Sharing, reloading and ending of plugins."""

from __future__ import annotations

import threading

import pytest

from tests.proxywasm.guest import Guest
from twisted_wasmproxy.interfaces import IFilter, IFilterFactory
from twisted_wasmproxy.proxywasm import PluginError


def lifelong():
    guest = Guest()
    for name in ("proxy_on_vm_start", "proxy_on_configure", "proxy_on_done", "proxy_on_delete", "proxy_on_log"):
        guest.on(name)
    return guest


def test_a_plugin_that_is_in_the_new_configuration_goes_on(bench):
    guest = lifelong()
    config = bench.config(guest)
    old = bench.start(config)
    new = bench.start(bench.config(config.vm.code))
    assert new.plugin is old.plugin
    assert old.set.close().called
    assert guest.names(new.vm) == ["vm_start", "configure"]
    vm = new.vm
    assert new.set.close().called
    assert vm.failed == "closed"


@pytest.mark.parametrize(
    "change",
    [{"configuration": b"new"}, {"root_id": "b"}, {"fail_open": True}, {"allow_on_headers_stop_iteration": True}],
)
def test_a_plugin_that_is_changed_is_another_in_the_same_vm(bench, change):
    config = bench.config(lifelong())
    old = bench.start(config)
    new = bench.start(bench.config(config.vm.code, **change))
    assert new.plugin is not old.plugin
    assert new.vm is old.vm


def test_changed_code_in_the_same_file_is_another_vm(bench):
    config = bench.config(lifelong())
    old = bench.start(config)
    other = lifelong()
    other.data(b"x")
    config.vm.code.write_bytes(bench.config(other).vm.code.read_bytes())
    assert bench.start(config).vm is not old.vm


def test_an_old_plugin_ends_after_its_last_stream(bench):
    guest = lifelong()
    loaded = bench.load(guest)
    vm = loaded.vm
    streams = [loaded.stream(), loaded.stream()]
    for stream in streams:
        stream.response_head()
    ended = loaded.set.close()
    assert not ended.called
    late = loaded.stream()
    streams[0].close()
    streams[1].close()
    assert not ended.called, "a stream that came last still has it"
    late.close()
    assert ended.called
    assert vm.failed == "closed"


def test_the_same_plugin_twice_in_a_configuration(bench):
    config = bench.config(lifelong())
    loaded = bench.start(config, config)
    one, two = loaded.set.plugins
    assert one is two
    assert loaded.set.close().called


def test_a_failed_start_leaves_running_plugins_alone(bench):
    good = bench.config(lifelong())
    old = bench.start(good)
    bad = Guest()
    bad.on("proxy_on_configure", result=0)
    with pytest.raises(PluginError):
        bench.start(good, bench.config(bad))
    assert old.plugin.users == 1
    assert old.vm.failed is None
    assert old.set.close().called


def test_preparing_is_for_any_thread(bench):
    guest = lifelong()
    prepared, config = [], bench.config(guest)
    thread = threading.Thread(target=lambda: prepared.append(bench.host.prepare(config)))
    thread.start()
    thread.join()
    assert bench.host.start(prepared).plugins[0].root is not None


def test_plugins_and_filters_provide_the_interfaces(bench):
    guest = lifelong()
    guest.on("proxy_on_request_headers", "unreachable")
    loaded, stream = bench.stream(guest)
    assert IFilterFactory.providedBy(loaded.plugin)
    assert IFilter.providedBy(stream.filter)
    assert loaded.plugin.configured(None) is loaded.plugin
    with pytest.raises(ValueError, match="configured where it is loaded"):
        loaded.plugin.configured({"a": 1})
    stream.request_head()
    assert IFilter.providedBy(loaded.plugin.create(stream))


def test_no_plugins(bench):
    assert bench.host.start([]).close().called
