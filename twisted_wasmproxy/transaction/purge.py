"""The method PURGE: forget what is stored under a URL, for those who may; as Traffic Server and Squid have it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.local import LocalReply

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.lookup import Caching
    from twisted_wasmproxy.transaction.transaction import Transaction

__all__ = ["purge"]

_log = Logger()


def purge(txn: Transaction, caching: Caching) -> None:
    """Answer a PURGE: 200 if something was stored, 404 if not, 403 to clients outside of `cache.purge`."""
    peer = txn.stream.connection.peer
    if peer is not None:  # who can open a Unix socket may do it
        address = ip_address(peer[0])
        if not any(address in network for network in caching.config.purge):
            txn.local_reply(local.error(403, "this client may not purge", b"client_denied"))
            return

    def purged(count: int) -> None:
        status = 200 if count else 404
        txn.local_reply(LocalReply(status, [(b"Content-Type", b"text/plain")], b"%d purged\n" % count, b"purge"))

    def failed(failure: Failure) -> None:
        _log.failure("a purge failed", failure)
        txn.local_reply(local.error(500, "the purge failed", b"purge"))

    _, url = caching.keys.make(txn.request)
    count = caching.cache.purge(Selection(url=url), False)
    if isinstance(count, Deferred):
        count.addCallbacks(purged, failed)
        count.addErrback(txn.crashed)
    else:
        purged(count)
