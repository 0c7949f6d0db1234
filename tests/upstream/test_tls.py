"""TLS to origins: who is believed, and what is said when not."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.reactor import call
from tests.upstream.support import Recorder, accept, eventually, listening, nothing_left, port_of
from tests.upstream.test_clusters import Proxy, answer, ask, closed
from twisted_wasmproxy.config.model import ServerConfig, UpstreamConfig, UpstreamTLSConfig
from twisted_wasmproxy.http.stream import StreamFault

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return path


def context(*names: str, authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(made)
    made.set_alpn_protocols(["http/1.1"])
    return made


def upstream(port: int, host: str = "127.0.0.1", timeout: float = 5.0, **tls: Any) -> UpstreamConfig:
    return UpstreamConfig(
        "origin", (ServerConfig(host, port, tls=True),), connect_timeout=timeout, tls=UpstreamTLSConfig(**tls)
    )


def exchange(server: socket.socket, made: ssl.SSLContext, config: UpstreamConfig) -> ssl.SSLSocket:
    """Do one exchange; return the server's end, closed by the proxy."""
    with nothing_left(), Proxy(config) as proxy:
        receiver = proxy.acquire()
        peer = made.wrap_socket(accept(server), server_side=True)
        receiver.next("ready")
        assert receiver.stream.connection.secure
        ask(receiver, peer)
        answer(receiver, peer)
        again = proxy.acquire()
        again.next("ready")
        assert again.stream.reused
        ask(again, peer)
        answer(again, peer)
        call(proxy.upstreams.close)
        assert closed(peer)
        peer.close()
    return peer


def refused(server: socket.socket, made: ssl.SSLContext, config: UpstreamConfig) -> str:
    """See an exchange refused; return why."""
    with nothing_left(), Proxy(config) as proxy:
        receiver = proxy.acquire()
        with accept(server) as peer:
            try:
                made.wrap_socket(peer, server_side=True).recv(1)
            except OSError:
                pass
            else:
                raise AssertionError("the proxy has sent something or closed in peace")
        error = receiver.next("error")
        assert error.fault is StreamFault.CONNECT
        assert proxy.cluster.servers[0].health.failures == 1
        receiver.nothing()
    return str(error)


def test_a_certificate_is_verified_against_the_configured_roots(ca_file: Path):
    with listening() as server:
        exchange(server, context("127.0.0.1"), upstream(port_of(server), ca_file=ca_file))


def test_name_and_protocol_are_offered(ca_file: Path):
    made = context("localhost")
    asked: list[str | None] = []
    made.sni_callback = lambda sock, name, ctx: asked.append(name)
    with listening() as server:
        peer = exchange(server, made, upstream(port_of(server), "localhost", ca_file=ca_file))
    assert asked == ["localhost"]
    assert peer is not None


def test_alpn(ca_file: Path):
    with listening() as server, Proxy(upstream(port_of(server), ca_file=ca_file)) as proxy:
        receiver = proxy.acquire()
        peer = context("127.0.0.1").wrap_socket(accept(server), server_side=True)
        assert peer.selected_alpn_protocol() == "http/1.1"
        receiver.next("ready")
        call(receiver.stream.abort)
        peer.close()


def test_the_systems_roots_are_the_default(ca_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    with listening() as server:
        exchange(server, context("127.0.0.1"), upstream(port_of(server)))


def test_an_unknown_authority_is_refused():
    with listening() as server:
        why = refused(server, context("127.0.0.1"), upstream(port_of(server)))
    assert "TLS" in why
    assert "certificate verify failed" in why


@pytest.mark.parametrize("name", ["127.0.0.2", "other.example"])
def test_a_certificate_for_another_name_is_refused(ca_file: Path, name: str):
    with listening() as server:
        why = refused(server, context(name), upstream(port_of(server), ca_file=ca_file))
    assert "the certificate is not for 127.0.0.1" in why


def test_a_certificate_for_no_name_is_refused(ca_file: Path, tmp_path: Path):
    key = ec.generate_private_key(ec.SECP256R1())
    roots = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    authority_key = serialization.load_pem_private_key(AUTHORITY.private_key_pem.bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]))
        .issuer_name(roots.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(roots.not_valid_before_utc)
        .not_valid_after(roots.not_valid_after_utc)
        .sign(authority_key, hashes.SHA256())
    )
    path = tmp_path / "nameless.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path)
    with listening() as server:
        why = refused(server, made, upstream(port_of(server), ca_file=ca_file))
    assert "the certificate is not for 127.0.0.1" in why


def test_server_name_replaces_the_host_in_sni_and_verification(ca_file: Path):
    made = context("origin.example")
    asked: list[str | None] = []
    made.sni_callback = lambda sock, name, ctx: asked.append(name)
    with listening() as server:
        exchange(server, made, upstream(port_of(server), ca_file=ca_file, server_name="origin.example"))
        refused(server, context("127.0.0.1"), upstream(port_of(server), ca_file=ca_file, server_name="origin.example"))
    assert asked == ["origin.example"]


def test_verification_can_be_switched_off_and_the_name_is_still_sent():
    made = context("whatever.example", authority=STRANGER)
    asked: list[str | None] = []
    made.sni_callback = lambda sock, name, ctx: asked.append(name)
    with listening() as server:
        exchange(server, made, upstream(port_of(server), verify=False, server_name="my_host.example"))
        exchange(server, made, upstream(port_of(server), verify=False))
    assert asked == ["my_host.example", None]


def test_a_client_certificate_is_presented_with_its_chain(ca_file: Path, tmp_path: Path):
    intermediate = STRANGER.create_child_ca()
    client = intermediate.issue_cert("client.example")
    path = tmp_path / "client.pem"
    client.private_key_and_cert_chain_pem.write_to_path(path)
    made = context("127.0.0.1")
    made.verify_mode = ssl.CERT_REQUIRED
    STRANGER.configure_trust(made)
    with listening() as server, Proxy(upstream(port_of(server), ca_file=ca_file, certificate=path)) as proxy:
        receiver = proxy.acquire()
        peer = made.wrap_socket(accept(server), server_side=True)
        receiver.next("ready")
        certificate = peer.getpeercert()
        assert certificate is not None
        assert certificate["subjectAltName"] == (("DNS", "client.example"),)
        call(receiver.stream.abort)
        peer.close()


def test_a_server_that_does_not_speak_tls(ca_file: Path):
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), ca_file=ca_file)) as proxy:
        receiver = proxy.acquire()
        with accept(server) as peer:
            peer.recv(1)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert "TLS" in str(receiver.next("error"))


def test_a_server_that_closes_in_the_handshake(ca_file: Path):
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), ca_file=ca_file)) as proxy:
        receiver = proxy.acquire()
        accept(server).close()
        error = receiver.next("error")
        assert error.fault is StreamFault.CONNECT
        assert "connection closed in the TLS handshake" in str(error)


def test_a_server_that_is_silent_in_the_handshake(ca_file: Path):
    config = {"timeout": 0.2, "ca_file": ca_file}
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), **config)) as proxy:
        receiver = proxy.acquire()
        peer = accept(server)
        assert receiver.next("error").fault is StreamFault.TIMEOUT
        peer.recv(65536)
        assert closed(peer)
        peer.close()
        eventually(lambda: proxy.cluster.servers[0].health.failures == 1)


def test_cancelling_in_the_handshake_leaves_nothing(ca_file: Path):
    with nothing_left(), listening() as server, Proxy(upstream(port_of(server), ca_file=ca_file)) as proxy:
        receiver = proxy.acquire()
        peer = accept(server)
        assert peer.recv(65536)
        call(receiver.wait.cancel)
        assert closed(peer)
        peer.close()
        receiver.nothing()


def test_a_name_that_no_certificate_can_hold_is_an_error_not_a_crash(ca_file: Path):
    with nothing_left(), listening() as server:
        config = upstream(port_of(server), ca_file=ca_file, server_name="under_score..example")
        with Proxy(config) as proxy:
            receiver: Recorder = proxy.acquire()
            accept(server).close()
            assert "cannot be verified by TLS" in str(receiver.next("error"))


def test_bad_files_are_errors_with_their_name(tmp_path: Path, ca_file: Path):
    text = tmp_path / "text.pem"
    text.write_text("hello")
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(ca_file.read_bytes() + b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(
        AUTHORITY.issue_cert("a").cert_chain_pems[0].bytes() + AUTHORITY.issue_cert("b").private_key_pem.bytes()
    )
    for tls, why in [
        ({"ca_file": text}, "no certificate"),
        ({"ca_file": torn}, "not a readable certificate"),
        ({"certificate": ca_file}, "no private key"),
        ({"certificate": encrypted}, "pass phrase"),
        ({"certificate": mixed}, "that fits the certificate"),
    ]:
        with pytest.raises(ValueError, match=why) as raised:
            Proxy(upstream(1, **tls))
        assert str(next(iter(tls.values()))) in str(raised.value)
    with pytest.raises(FileNotFoundError):
        Proxy(upstream(1, ca_file=tmp_path / "missing.pem"))


def test_a_reload_takes_up_a_changed_file(ca_file: Path):
    config = upstream(1, ca_file=ca_file)
    with Proxy(config) as first, Proxy(config, previous=first) as same:
        assert same.cluster is first.cluster
        STRANGER.cert_pem.write_to_path(ca_file)
        with Proxy(config, previous=same) as changed:
            assert changed.cluster is not same.cluster
