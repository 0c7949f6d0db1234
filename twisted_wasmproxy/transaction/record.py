"""A transaction that has ended, as the access log wants it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from twisted_wasmproxy.accesslog.record import TransactionRecord
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.stream import ConnectionInfo, StreamError, StreamFault
from twisted_wasmproxy.http.tls import tls_details

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.status import CacheStatus
    from twisted_wasmproxy.transaction.transaction import Transaction

__all__ = ["record_of", "record_of_refusal"]

_RESULTS = {
    b"connect": "ERR_CONNECT_FAIL",
    b"timeout": "ERR_READ_TIMEOUT",
    b"client_denied": "ERR_PROXY_DENIED",
    b"host_denied": "ERR_PROXY_DENIED",
    b"port_denied": "ERR_PROXY_DENIED",
    b"denied": "ERR_PROXY_DENIED",
    b"not_absolute_form": "ERR_INVALID_REQ",
    b"bad_authority": "ERR_INVALID_REQ",
    b"bad_scheme": "ERR_INVALID_REQ",
}
"""Traffic Server's result codes by our details."""


def record_of(txn: Transaction, error: StreamError | None) -> TransactionRecord:
    """Describe a transaction; `error` is how the client's stream broke, if it did."""
    stream, connection = txn.stream, txn.stream.connection
    request, response = txn.request, txn.response
    record = TransactionRecord(
        start=txn.start_date(),
        client_reused=stream.reused,
        duration=txn.finished - txn.started,
        method=request.method,
        scheme=request.scheme,
        authority=request.authority,
        path=request.path,
        version=request.version,
        request_headers=request.headers,
        request_header_bytes=stream.head_received,
        request_body_bytes=txn.request_bytes,
        request_finished=error is None,
        response_header_bytes=stream.head_sent,
        response_body_bytes=txn.response_bytes,
        hierarchy=txn.hierarchy.decode(),
        details=txn.details or txn.termination,
        filter=txn.answered_by,
    )
    _set_connection(record, connection)
    if error is not None and error.status:
        record.status = error.status
    elif response is not None:
        record.status = response.status
        record.reason = response.reason
        record.response_headers = response.headers
    if error is not None and not txn.replied:
        record.result = "ERR_READ_TIMEOUT" if error.fault is StreamFault.TIMEOUT else "ERR_CLIENT_ABORT"
    elif txn.upstream_failure and not txn.replied:
        record.result = "ERR_READ_TIMEOUT" if txn.termination == b"upstream:timeout" else "ERR_READ_ERROR"
    else:
        record.result = _RESULTS.get(txn.details) or _cache_result(txn.cache_status, record.status)
    if txn.outgoing is not None:
        outgoing = txn.outgoing
        url = outgoing.scheme + b"://" + outgoing.authority + outgoing.path
        if url != request.scheme + b"://" + request.authority + request.path:
            record.mapped_url = url
        record.origin_request_headers = outgoing.headers
    if txn.upstream_failure:
        record.details = b": ".join(filter(None, (record.details, txn.upstream_failure)))
    fetch = txn.fetch
    if fetch is not None and txn.upstream_connection is not None and fetch.server is not None:
        record.origin_name = fetch.server.host
        record.origin_tls = fetch.server.tls
        record.origin_attempts = txn.attempts
        if txn.upstream_connection.peer is not None:
            record.origin_address, record.origin_port = txn.upstream_connection.peer
        if txn.request_sent:
            record.origin_duration = txn.finished - txn.request_sent
        if fetch.stream is not None:
            record.origin_request_body_bytes = txn.request_bytes
            record.origin_request_header_bytes = fetch.stream.head_sent
            record.origin_response_header_bytes = fetch.stream.head_received
        if fetch.response is not None:
            record.origin_status = fetch.response.status
            record.origin_version = fetch.response.version
            record.origin_response_headers = Headers(fetch.response.headers)
            record.origin_response_body_bytes = txn.response_bytes
        if txn.upstream_failure:
            record.origin_finish = "TIMEOUT" if record.result == "ERR_READ_TIMEOUT" else "INTR"
    return record


def _cache_result(status: CacheStatus | None, sent: int) -> str:
    """Return Traffic Server's result code for what the cache says of an answer (`sent`: its status)."""
    if status is None:
        return "TCP_MISS"
    if status.fwd is None:
        return "TCP_IMS_HIT" if sent == 304 else "TCP_HIT"
    if status.collapsed:
        return "TCP_CF_HIT"
    if status.fwd == "request":
        return "TCP_CLIENT_REFRESH"
    if status.fwd != "stale":
        return "TCP_MISS"
    if status.fwd_status == 304:
        return "TCP_REFRESH_HIT"
    return "TCP_REFRESH_MISS" if status.stored or status.detail is not None else "TCP_REF_FAIL_HIT"


def record_of_refusal(connection: ConnectionInfo, status: int, text: str) -> TransactionRecord:
    """Describe what a codec refused before there was a transaction."""
    record = TransactionRecord(start=time.time(), status=status, result="ERR_INVALID_REQ", details=text.encode())
    _set_connection(record, connection)
    return record


def _set_connection(record: TransactionRecord, connection: ConnectionInfo) -> None:
    if connection.peer is not None:
        record.client_address, record.client_port = connection.peer
    if connection.local is not None:
        record.local_address, record.local_port = connection.local
    if connection.secure:
        details = tls_details(connection)
        if details is not None:
            record.tls_version = details.version.decode()
            record.tls_server_name = (details.server_name or b"").decode("latin-1")
