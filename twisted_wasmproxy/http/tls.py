"""What TLS tells of a connection: version, server name, certificates."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL

from twisted_wasmproxy.http.stream import ConnectionInfo

__all__ = ["Certificate", "TLSDetails", "tls_details"]


@dataclass(frozen=True)
class Certificate:
    """The parts of a certificate that filters ask for; of several names the first, as Traffic Server and Envoy do."""

    subject: bytes
    """RFC 4514 form."""
    dns_san: bytes | None
    uri_san: bytes | None
    sha256: bytes
    """Hex digest of the DER form."""
    pem: bytes


@dataclass(frozen=True)
class TLSDetails:
    version: bytes
    """`TLSv1.3` and the like."""
    server_name: bytes | None
    local: Certificate | None
    peer: Certificate | None


def tls_details(connection: ConnectionInfo) -> TLSDetails | None:
    """Return the details of a TLS connection, None of another or of one that is gone."""
    if not connection.secure:
        return None
    get_handle = getattr(connection.transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if not isinstance(handle, SSL.Connection):
        return None
    return TLSDetails(
        handle.get_protocol_version_name().encode(),
        handle.get_servername(),
        _certificate(handle.get_certificate()),
        _certificate(handle.get_peer_certificate()),
    )


def _certificate(found: object) -> Certificate | None:
    if found is None:
        return None
    certificate = found.to_cryptography() if hasattr(found, "to_cryptography") else found
    assert isinstance(certificate, x509.Certificate)
    dns: list[str] = []
    uri: list[str] = []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = names.get_values_for_type(x509.DNSName)
        uri = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        pass
    return Certificate(
        certificate.subject.rfc4514_string().encode(),
        dns[0].encode() if dns else None,
        uri[0].encode() if uri else None,
        certificate.fingerprint(hashes.SHA256()).hex().encode(),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
