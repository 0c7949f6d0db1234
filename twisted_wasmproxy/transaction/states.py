"""The states of a transaction, the legal moves between them, and Traffic Server's names for what happens on the way.

A transaction reads a request, sends it on, reads the response and sends that on. The four states say which *head*
is being waited for or handled; bodies flow in both directions beside them:

- READ_REQUEST: the client's head is in, filters of the client phase look at it (any of them may hold it).
- SEND_REQUEST: an origin has been chosen; filters of the origin phase look at the outgoing head, a connection is
  found, the head is sent.
- READ_RESPONSE: the head is with the origin; its answer is waited for.
- SEND_RESPONSE: there is an answer, from the origin or made here; it goes to the client through the filters.

A local answer jumps to SEND_RESPONSE from anywhere before it; an attempt that failed before any answer may go back
to SEND_REQUEST once; a 101 or a CONNECT goes on as a TUNNEL; everything ends in CLOSED.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto

__all__ = ["TRANSITIONS", "Hook", "State"]


class State(IntEnum):
    READ_REQUEST = auto()
    SEND_REQUEST = auto()
    READ_RESPONSE = auto()
    SEND_RESPONSE = auto()
    TUNNEL = auto()
    CLOSED = auto()


TRANSITIONS: dict[State, frozenset[State]] = {
    State.READ_REQUEST: frozenset({State.SEND_REQUEST, State.SEND_RESPONSE, State.CLOSED}),
    State.SEND_REQUEST: frozenset({State.READ_RESPONSE, State.SEND_RESPONSE, State.CLOSED}),
    State.READ_RESPONSE: frozenset({State.SEND_REQUEST, State.SEND_RESPONSE, State.CLOSED}),
    State.SEND_RESPONSE: frozenset({State.TUNNEL, State.CLOSED}),
    State.TUNNEL: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}
"""Every move that a transaction may make."""


class Hook(Enum):
    """Traffic Server's hook names, in the order of a miss.

    A transaction without an origin skips from CACHE_LOOKUP_COMPLETE to SEND_RESPONSE_HDR; one refused earlier
    from wherever it was; a CONNECT has no READ_RESPONSE_HDR, since no HTTP comes back. SEND_REQUEST_HDR may come
    again on a retry.
    """

    TXN_START = "TXN_START"
    READ_REQUEST_HDR = "READ_REQUEST_HDR"
    PRE_REMAP = "PRE_REMAP"
    POST_REMAP = "POST_REMAP"
    CACHE_LOOKUP_COMPLETE = "CACHE_LOOKUP_COMPLETE"
    SEND_REQUEST_HDR = "SEND_REQUEST_HDR"
    READ_RESPONSE_HDR = "READ_RESPONSE_HDR"
    SEND_RESPONSE_HDR = "SEND_RESPONSE_HDR"
    TXN_CLOSE = "TXN_CLOSE"
