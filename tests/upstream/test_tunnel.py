"""CONNECT tunnels over real sockets."""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.reactor import call, started_reactor
from tests.upstream.support import (
    Recorder,
    accept,
    black_hole,
    eventually,
    listening,
    nothing_left,
    port_of,
    refusing,
    request,
)
from twisted_wasmproxy.config.model import AccessConfig
from twisted_wasmproxy.http.stream import StreamFault
from twisted_wasmproxy.upstream.access import Access
from twisted_wasmproxy.upstream.tunnel import open_tunnel


def opened(
    receiver: Recorder, port: int, host: str = "127.0.0.1", timeout: float = 5.0, access: Access | None = None
) -> Any:
    reactor = started_reactor()
    return call(open_tunnel, host, port, reactor, timeout, access, receiver, receiver.ready)


def tunnel(server: socket.socket, host: str = "127.0.0.1") -> tuple[Recorder, socket.socket]:
    receiver = Recorder()
    opened(receiver, port_of(server), host)
    peer = accept(server)
    receiver.next("ready")
    call(receiver.stream.send_request, request(b"", b"CONNECT"), False)
    response = receiver.next("response")
    assert (response.status, response.reason) == (200, b"Connection Established")
    return receiver, peer


def test_bytes_go_both_ways_and_are_counted():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        stream = receiver.stream
        call(stream.send_data, b"hello")
        assert peer.recv(100) == b"hello"
        peer.sendall(b"\0\xff" * 10)
        assert receiver.data(20) == b"\0\xff" * 10
        assert (stream.bytes_sent, stream.bytes_received) == (5, 20)
        assert stream.authority == b"127.0.0.1:%d" % port_of(server)
        assert stream.connection.peer == ("127.0.0.1", port_of(server))
        assert stream.connection.local == peer.getpeername()
        assert not stream.connection.secure
        assert not stream.reused
        call(stream.abort)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        peer.close()
        receiver.nothing()


def test_half_close_by_us_first():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        call(receiver.stream.send_data, b"question")
        call(receiver.stream.send_end)
        assert peer.makefile("rb").read() == b"question"
        peer.sendall(b"answer")
        assert receiver.data(6) == b"answer"
        peer.close()
        receiver.next("end")
        receiver.nothing()


def test_half_close_by_the_other_end_first():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        assert receiver.data(8) == b"question"
        receiver.next("end")
        call(receiver.stream.send_data, b"answer")
        call(receiver.stream.send_end)
        assert peer.makefile("rb").read() == b"answer"
        peer.close()
        receiver.nothing()


def test_a_half_close_waits_for_all_that_was_sent_before_it():
    size = 8 * 1024 * 1024
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        call(receiver.stream.send_data, bytes(size))
        receiver.next("pause")
        call(receiver.stream.send_end)
        received = 0
        while data := peer.recv(1 << 20):
            received += len(data)
        assert received == size
        peer.close()
        receiver.next("end")


def test_a_slow_reader_pauses_the_writer():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        sent = 0
        while receiver.events.empty():
            call(receiver.stream.send_data, bytes(65536))
            sent += 65536
            assert sent < 64 * 1024 * 1024
        receiver.next("pause")
        received = 0
        while received < sent:
            received += len(peer.recv(1 << 20))
        receiver.next("resume")
        call(receiver.stream.abort)
        peer.close()


def test_a_paused_reader_takes_nothing_and_the_other_end_is_held_up():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        call(receiver.stream.pause_reading)
        peer.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while True:
                sent += peer.send(bytes(65536))
                assert sent < 64 * 1024 * 1024
        receiver.nothing()
        call(receiver.stream.resume_reading)
        assert len(receiver.data(sent)) == sent
        call(receiver.stream.abort)
        peer.close()


def test_nothing_is_read_before_the_request():
    with nothing_left(), listening() as server:
        receiver = Recorder()
        opened(receiver, port_of(server))
        peer = accept(server)
        peer.sendall(b"banner")
        receiver.next("ready")
        receiver.nothing()
        call(receiver.stream.pause_reading)
        call(receiver.stream.resume_reading)
        receiver.nothing()
        call(receiver.stream.send_request, request(b"", b"CONNECT"), False)
        receiver.next("response")
        assert receiver.data(6) == b"banner"
        call(receiver.stream.abort)
        peer.close()


def test_a_reset_by_the_other_end_is_a_failure():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        assert receiver.next("failed").fault is StreamFault.DISCONNECTED
        call(receiver.stream.send_data, b"late")
        call(receiver.stream.send_end)
        call(receiver.stream.abort)
        receiver.nothing()


def test_ipv6():
    try:
        with listening("::1"):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with nothing_left(), listening("::1") as server:
        receiver, peer = tunnel(server, "::1")
        assert receiver.stream.connection.peer == ("::1", port_of(server))
        assert receiver.stream.authority == b"[::1]:%d" % port_of(server)
        call(receiver.stream.abort)
        peer.close()


def test_a_name_is_resolved():
    with nothing_left(), listening() as server:
        receiver, peer = tunnel(server, "localhost")
        call(receiver.stream.abort)
        peer.close()


def failure(port: int, host: str = "127.0.0.1", timeout: float = 5.0, access: Access | None = None) -> Any:
    receiver = Recorder()
    with nothing_left():
        opened(receiver, port, host, timeout, access)
        error = receiver.next("error")
        receiver.nothing()
    return error


def test_a_refused_connection():
    with refusing() as port:
        error = failure(port)
    assert error.fault is StreamFault.CONNECT
    assert str(error) == f"127.0.0.1:{port}: Connection refused"


def test_a_silent_host_is_a_timeout():
    with black_hole() as port:
        error = failure(port, timeout=0.2)
    assert error.fault is StreamFault.TIMEOUT
    assert str(error) == f"127.0.0.1:{port}: no connection within 0.2 s"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".invalid", "nul\0.invalid", "a..b", "\ud800"])
def test_a_name_that_cannot_be_found(host: str):
    error = failure(80, host)
    assert error.fault is StreamFault.CONNECT
    assert "host name not found" in str(error)


SPELLINGS = [
    *(
        "127.0.0.1",
        "localhost",
        "LocalHost",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0.0.0.0",
        "2130706433",
    ),
    *(
        "::1",
        "0:0:0:0:0:0:0:1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ),
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_a_denied_address_is_not_connected_to_under_any_name(host: str):
    with listening() as server:
        error = failure(port_of(server), host, access=Access(AccessConfig()))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert error.fault is StreamFault.DENIED
    assert "is denied" in str(error)


def test_only_the_allowed_addresses_of_a_name_are_used():
    access = Access(AccessConfig(allow_destinations=(ip_network("127.0.0.0/8"),)))
    with nothing_left(), listening() as server:
        receiver = Recorder()
        opened(receiver, port_of(server), "localhost", access=access)
        peer = accept(server)
        receiver.next("ready")
        assert receiver.stream.connection.peer[0] == "127.0.0.1"
        call(receiver.stream.abort)
        peer.close()


def test_cancelling_while_connecting_leaves_nothing():
    receiver = Recorder()
    with nothing_left(), black_hole() as port:
        attempt = opened(receiver, port)
        eventually(lambda: any("tcp" in repr(w).lower() for w in started_reactor().getWriters()))
        call(attempt.cancel)
        call(attempt.cancel)
        receiver.nothing()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
def test_cancelling_at_once_leaves_nothing(host: str):
    receiver = Recorder()
    with nothing_left(), listening() as server:
        reactor = started_reactor()
        call(lambda: open_tunnel(host, port_of(server), reactor, 5.0, None, receiver, receiver.ready).cancel())
        receiver.nothing()
