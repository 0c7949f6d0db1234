"""The method PURGE: forget what is stored under a URL, for those who may; as Traffic Server and Squid have it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_wasmproxy.cache.entry import Selection
from twisted_wasmproxy.http.bearer import CHALLENGE, bears, came_through_a_proxy
from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.transaction import local
from twisted_wasmproxy.transaction.local import LocalReply

if TYPE_CHECKING:
    from twisted_wasmproxy.cache.lookup import Caching
    from twisted_wasmproxy.transaction.transaction import Transaction

__all__ = ["hide_token", "purge"]

_log = Logger()


def purge(txn: Transaction, caching: Caching) -> None:
    """Answer a PURGE: 200 if something was stored, 404 if not, 403 to clients outside of `cache.purge`, 401 without
    its token."""
    config = caching.config
    headers = txn.request.headers
    authorization = headers.get_all(b"authorization")
    if config.purge_token is not None:
        headers.remove(b"authorization")  # which no log needs to have
    peer = txn.stream.connection.peer
    if peer is not None:  # who can open a Unix socket may do it
        address = ip_address(peer[0])
        if not any(address in network for network in config.purge):
            txn.local_reply(local.error(403, "this client may not purge", b"client_denied"))
            return
    if config.purge_token is not None:
        if not bears(authorization, config.purge_token):
            reply = local.error(401, "a purge needs the token", b"client_denied")
            reply.headers = [*reply.headers, CHALLENGE]
            txn.local_reply(reply)
            return
    elif came_through_a_proxy(line[0] for line in headers.lines):
        text = "this came through a proxy, so nobody knows from whom: a purge then needs a token (cache.purge)"
        txn.local_reply(local.error(403, text, b"client_denied"))
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


def hide_token(txn: Transaction) -> None:
    """Take the token out of a PURGE that goes on to an origin, as its rule has no cache."""
    cache = txn.proxy.cache
    token = cache.config.purge_token if cache is not None else None
    headers = txn.request.headers
    if token is not None and bears(headers.get_all(b"authorization"), token):
        headers.remove(b"authorization")
