"""TLS to origins: from an `UpstreamTLSConfig` to what Twisted's TLS wants for one host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from OpenSSL.crypto import Error as CryptoError
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_wasmproxy.config.model import UpstreamTLSConfig
from twisted_wasmproxy.upstream.resolve import is_address

__all__ = ["Handshake", "OriginTLS", "describe_tls_error"]


class OriginTLS:
    """The TLS settings of one upstream, with the files they name as they were when this was made."""

    __slots__ = ("_ca", "_certificate", "_config", "_context", "_protocols")

    def __init__(self, config: UpstreamTLSConfig, protocols: Sequence[bytes] = (b"http/1.1",)) -> None:
        """Read the files. Raises OSError if one cannot be read, ValueError if it does not hold what it should.

        `protocols` are offered by ALPN (RFC 7301), best first.
        """
        self._config = config
        self._context: SSL.Context | None = None
        self._protocols = list(protocols)
        self._ca = b"" if config.ca_file is None else config.ca_file.read_bytes()
        self._certificate = b"" if config.certificate is None else config.certificate.read_bytes()
        if config.ca_file is not None:
            _load_certificates(self._ca, config.ca_file)
        if config.certificate is not None:
            _load_client_certificate(self._certificate, config.certificate)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OriginTLS):
            return NotImplemented
        mine = (self._config, self._protocols, self._ca, self._certificate)
        return mine == (other._config, other._protocols, other._ca, other._certificate)

    __hash__ = None  # type: ignore[assignment]  # compared on reload, never a key

    def handshake_with(self, host: str) -> Handshake:
        """Return the settings of one connection to `host`; ValueError for a name that no certificate can hold."""
        name = self._config.server_name or host.partition("%")[0].rstrip(".")
        return Handshake(self.prepare(), name, self._protocols, self._config.verify)

    def prepare(self) -> SSL.Context:
        """Return the context that all connections share: the trust roots take time to load, and much memory."""
        if self._context is not None:
            return self._context
        config = self._config
        options: dict[str, Any] = {}
        if config.certificate is not None:
            options = _load_client_certificate(self._certificate, config.certificate)
        if config.ca_file is not None:
            options["trustRoot"] = trustRootFromCertificates(_load_certificates(self._ca, config.ca_file))
        elif config.verify:
            options["trustRoot"] = platformTrust()
        self._context = CertificateOptions(**options).getContext()
        return self._context


@implementer(IOpenSSLClientConnectionCreator)
class Handshake:
    """Makes one connection; checks in its handshake that the certificate is for the name (RFC 9110 section 4.3.4).

    Not left to Twisted's `optionsForClientTLS`, which takes a certificate without any subjectAltName for every host
    (it meets an exception that it does not expect, logs it and goes on), and needs a context for each host.
    """

    def __init__(self, context: SSL.Context, name: str, protocols: list[bytes], verify: bool) -> None:
        self.problem: str | None = None
        """What was wrong with the name in the certificate."""
        self._context = context
        self._protocols = protocols
        self._verify = verify
        self._name = name
        self._server_name: bytes | None = None
        self._id: IPAddress_ID | DNS_ID | None = None
        if is_address(name):
            if verify:
                self._id = IPAddress_ID(name)
        else:
            self._server_name = name.encode("idna")
            if verify:
                self._id = DNS_ID(self._server_name.decode())

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_alpn_protos(self._protocols)
        if self._server_name is not None:  # no addresses in SNI (RFC 6066 section 3)
            connection.set_tlsext_host_name(self._server_name)
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER, self._is_believed)
        else:
            connection.set_verify(SSL.VERIFY_NONE, None)
        return connection

    def _is_believed(self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        if depth or not ok:
            return bool(ok)
        assert self._id is not None
        try:
            verify_service_identity(extract_patterns(certificate), [self._id], [])
        except (VerificationError, CertificateError):
            self.problem = f"the certificate is not for {self._name}"
        except Exception as failure:  # whatever is wrong with a certificate, it must not be believed
            self.problem = f"the certificate cannot be read: {failure}"
        return self.problem is None


def describe_tls_error(error: BaseException | None) -> str | None:
    """Return what went wrong in a handshake in the words of OpenSSL, or None if it was no fault of TLS."""
    if isinstance(error, SSL.Error):
        queue = error.args[0] if error.args else ()
        reasons = [entry[2] for entry in queue] if isinstance(queue, (list, tuple)) else []
        return ", ".join(reasons) or "handshake failed"
    return None


_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


def _load_certificates(pem: bytes, path: Path) -> list[Certificate]:
    try:
        certificates = [Certificate.loadPEM(found) for found in _PEM_CERTIFICATE.findall(pem)]
    except CryptoError as error:
        raise ValueError(f"{path}: not a readable certificate in PEM form: {error}") from None
    if not certificates:
        raise ValueError(f"{path}: no certificate in PEM form")
    return certificates


def _load_client_certificate(pem: bytes, path: Path) -> dict[str, Any]:
    leaf, *chain = _load_certificates(pem, path)
    if b"ENCRYPTED" in pem:  # OpenSSL would ask for the pass phrase on the terminal
        raise ValueError(f"{path}: the private key has a pass phrase")
    try:
        private = PrivateCertificate.loadPEM(pem)
        CertificateOptions(privateKey=private.privateKey.original, certificate=leaf.original).getContext()
    except (CryptoError, SSL.Error, VerifyError, ValueError):
        raise ValueError(f"{path}: no private key in PEM form that fits the certificate") from None
    return {
        "privateKey": private.privateKey.original,
        "certificate": leaf.original,
        "extraCertChain": [certificate.original for certificate in chain],
    }
