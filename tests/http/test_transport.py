"""Writing to transports: what one pass brings goes out whole and in order, whatever the socket takes of it."""

import hashlib
import socket
import ssl
import threading

import pytest
import trustme
from OpenSSL import crypto
from twisted.internet import protocol
from twisted.internet.ssl import CertificateOptions

from tests.support.http1 import Peer, answer_at_end, connected_pair, response, serving
from tests.support.reactor import call, started_reactor
from twisted_wasmproxy.http.transport import is_plain_tcp, peer_has_spoken, unsent_bytes, write_now


class Plain(protocol.Protocol):
    def __init__(self):
        self.lost = threading.Event()

    def connectionLost(self, reason=protocol.connectionDone):
        self.lost.set()


@pytest.fixture
def plain():
    end = Plain()
    with connected_pair(end) as peer:
        yield end, peer
    assert end.lost.wait(10)


@pytest.mark.parametrize("sizes", [[10], [10, 20, 30], [100_000, 1, 100_000], [1] * 3000, [5_000_000], [70_000] * 100])
def test_pieces_arrive_whole_and_in_order(plain, sizes):
    end, peer = plain
    pieces = [bytes([n % 251]) * size for n, size in enumerate(sizes)]

    def write():
        for _ in range(3):
            rest = write_now(end.transport, list(pieces), sum(sizes))
            end.transport.writeSequence(rest)
        return unsent_bytes(end.transport)

    unsent = call(write)
    if sum(sizes) > 4_000_000:
        assert unsent > 0
    assert peer.read(3 * sum(sizes)) == b"".join(pieces) * 3
    while call(unsent_bytes, end.transport):
        pass  # the last acknowledgement may be under way


def test_a_lost_connection_is_found_by_the_transport(plain):
    end, peer = plain
    call(end.transport.pauseProducing)
    peer.reset()

    def write():
        for _ in range(100):
            end.transport.writeSequence(write_now(end.transport, [b"x" * 1000], 1000))

    call(write)
    assert end.lost.wait(10)
    assert call(write_now, end.transport, [b"x"], 1) == [b"x"]


def test_what_the_peer_has_sent_or_closed_is_seen_before_it_is_read(plain):
    end, peer = plain

    def look(action):
        before = peer_has_spoken(end.transport)
        action()
        return before, peer_has_spoken(end.transport)

    assert call(look, lambda: peer.send(b"x")) == (False, True)
    call(lambda: None)
    assert call(look, peer.shutdown) == (False, True)


# -- TLS


@pytest.fixture(scope="module")
def tls():
    """A function that starts TLS at a server's factory, and one that connects to it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    options = CertificateOptions(
        privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, issued.private_key_pem.bytes()),
        certificate=crypto.load_certificate(crypto.FILETYPE_PEM, issued.cert_chain_pems[0].bytes()),
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def listen(server):
        return call(lambda: started_reactor().listenSSL(0, server.factory, options, interface="127.0.0.1"))

    def connect(port):
        sock = socket.create_connection(("127.0.0.1", port.getHost().port))
        return Peer(context.wrap_socket(sock, server_hostname="127.0.0.1"))

    return listen, connect


def test_exchanges_over_tls_are_those_of_tcp(tls):
    listen, connect = tls
    with serving(answer_at_end) as server:
        port = listen(server)
        with connect(port) as peer:
            for n in range(3):
                peer.send(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % n)
                assert peer.response()[2] == b"POST /%d abc" % n
            exchange = server.exchange("finished")
            assert exchange.stream.connection.secure
            assert not is_plain_tcp(exchange.stream.connection.transport)
            assert exchange.request.scheme == b"https"
            peer.send(b"nonsense\r\n\r\n")
            assert peer.response()[0] == 400
            assert peer.read_all() == b""
        call(port.stopListening)


def test_large_content_over_tls_is_held_back_by_a_slow_reader(tls):
    listen, connect = tls
    chunk = bytes(range(256)) * 256

    def script(exchange, event):
        if event == "end":
            exchange.sent = 0
            exchange.stream.send_response(response(200), False)
            started_reactor().callLater(0, send, exchange)
        elif event == "resume":
            send(exchange)

    def send(exchange):
        while exchange.events[-1] != "pause" and exchange.sent < 500:
            exchange.sent += 1
            exchange.stream.send_data(chunk)
        if exchange.sent == 500:
            exchange.sent += 1
            exchange.stream.send_end()

    with serving(script) as server:
        port = listen(server)
        with connect(port) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            exchange = server.exchange("pause")
            assert exchange.sent < 200
            status, _, content = peer.response()
            assert (status, hashlib.sha256(content).digest()) == (200, hashlib.sha256(chunk * 500).digest())
            assert server.exchange("finished").error is None
        call(port.stopListening)


def test_a_broken_off_answer_over_tls_is_not_complete(tls):
    listen, connect = tls

    def script(exchange, event):
        if event == "end":
            exchange.stream.send_response(response(200), False)
            exchange.stream.send_data(b"hello")
            exchange.stream.abort()

    with serving(script) as server:
        port = listen(server)
        with connect(port) as peer:
            peer.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert not peer.read_all().endswith(b"0\r\n\r\n")
        call(port.stopListening)
