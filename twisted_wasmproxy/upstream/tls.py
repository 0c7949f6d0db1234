"""TLS to origins: from an `UpstreamTLSConfig` to what Twisted's TLS wants for one host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import Error as CryptoError
from service_identity import VerificationError
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from twisted_wasmproxy.config.model import UpstreamTLSConfig

__all__ = ["OriginTLS", "describe_tls_error"]


class OriginTLS:
    """The TLS settings of one upstream, with the files they name as they were when this was made."""

    __slots__ = ("_ca", "_certificate", "_config", "_protocols")

    def __init__(self, config: UpstreamTLSConfig, protocols: Sequence[bytes] = (b"http/1.1",)) -> None:
        """Read the files. Raises OSError if one cannot be read, ValueError if it does not hold what it should.

        `protocols` are offered by ALPN (RFC 7301), best first.
        """
        self._config = config
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

    def options_for(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Return what makes connections to `host`; to be kept, for it loads the trust roots.

        Raises ValueError for a name that cannot stand in a certificate.
        """
        config = self._config
        name = config.server_name or host.partition("%")[0].rstrip(".")
        options: dict[str, Any] = {}
        if config.certificate is not None:
            options = _load_client_certificate(self._certificate, config.certificate)
        if not config.verify:
            return _Unverified(CertificateOptions(**options), name, self._protocols)
        trust = None
        if config.ca_file is not None:
            trust = trustRootFromCertificates(_load_certificates(self._ca, config.ca_file))
        return optionsForClientTLS(name, trust, acceptableProtocols=self._protocols, extraCertificateOptions=options)


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Connections that take any certificate, but still name the host they want (SNI, RFC 6066 section 3)."""

    def __init__(self, options: CertificateOptions, name: str, protocols: list[bytes]) -> None:
        self._context = options.getContext()
        self._protocols = protocols
        self._name = None if ":" in name or name.replace(".", "").isdigit() else name.encode("idna")

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_alpn_protos(self._protocols)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        return connection


def describe_tls_error(error: BaseException | None) -> str | None:
    """Return what went wrong in a handshake in the words of OpenSSL, or None if it was no fault of TLS."""
    if isinstance(error, VerificationError):
        return "the certificate is for another name"
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
