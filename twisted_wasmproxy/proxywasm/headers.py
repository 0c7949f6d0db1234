"""Host calls on header and trailer maps.

A guest sees names in lower case, and the control data of the message (RFC 9110 section 6.2) first, as pseudo-headers;
`host` is another name of `:authority`. On the wire a line keeps its spelling until a guest writes it. What a guest
writes is checked: a name that is no token, or a value with CR, LF or NUL in it, could split a message in two.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.proxywasm.abi import MAP_SIZE, MapType, Status
from twisted_wasmproxy.proxywasm.contexts import Context
from twisted_wasmproxy.proxywasm.memory import ENTRY
from twisted_wasmproxy.proxywasm.wire import decode_pairs, encode_pairs, encoded_size

__all__ = [
    "acceptable",
    "add_value",
    "get_pairs",
    "get_size",
    "get_value",
    "pairs",
    "remove_value",
    "replace_value",
    "set_pairs",
]

_log = Logger()

_REQUEST, _REQUEST_TRAILERS, _RESPONSE, _RESPONSE_TRAILERS = range(4)
_LAST = max(MapType)

_CONTROL = {
    b":authority": "authority",
    b":path": "path",
    b":method": "method",
    b":scheme": "scheme",
    b"host": "authority",
}
"""Attributes of a request by the names that a guest has for them."""

_VALID = {
    "authority": re.compile(rb"[^\0-\x20\x7f/?#@\\]*"),
    "path": re.compile(rb"/[^\0-\x20\x7f]*|\*"),
    "method": re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"),
    "scheme": re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*"),
}
_STATUS = re.compile(rb"[1-9][0-9][0-9]")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SPLITTING = re.compile(rb"[\r\n\0]")
_splitting = _SPLITTING.search
_SHOWN = 100
"""Bytes of a name or value that are told in the log."""

_PLAIN_AT_MOST = 4096
_PLAIN_SIZE = 64
"""Bytes of a name."""
_plain: set[bytes] = set()
"""Names, as guests spell them, that are known to be tokens and neither pseudo-headers nor Host."""

_FREE_SIZE = 1024
"""Bytes of a line that is not counted while its map has no more than `_FREE_LINES`: the usual costs nothing."""
_FREE_LINES = 100
_FREE_MAP = 16 * 1024
"""Bytes of a whole map that is not counted."""

_OK = Status.OK


def get_value(context: Context, map_type: int, name: bytes) -> bytes | Status:
    stream = context.stream
    if stream is None:
        return Status.BAD_ARGUMENT if map_type > _LAST else context.vm.missing
    name = name.lower()
    if map_type == _REQUEST:
        request = stream.request
        if name in _CONTROL:
            value: bytes = getattr(request, _CONTROL[name])
            return value or context.vm.missing
        lines = request.headers.lines
    elif map_type == _RESPONSE:
        response = stream.response
        if response is None:
            return context.vm.missing
        if name == b":status":
            return b"%d" % response.status
        lines = response.headers.lines
    else:
        fields = _trailers(stream, map_type)
        if fields is None:
            return Status.BAD_ARGUMENT if map_type > _LAST else context.vm.missing
        lines = fields.lines
    for line in lines:
        if line[0] == name:
            found: bytes = line[2]
            return found
    return context.vm.missing


def get_pairs(context: Context, map_type: int) -> bytes | Status:
    if map_type > _LAST:
        return Status.BAD_ARGUMENT
    return encode_pairs(pairs(context.stream, map_type))


def get_size(context: Context, map_type: int) -> tuple[int] | Status:
    if map_type > _LAST:
        return Status.BAD_ARGUMENT
    context.vm.check_deadline()
    return (encoded_size(pairs(context.stream, map_type)),)


def set_pairs(context: Context, map_type: int, data: bytes) -> Status:
    """Replace all lines. Those that cannot be written are left out, lest a bad one keep what the guest takes away."""
    target = _writable(context, map_type)
    if target is None:
        return Status.BAD_ARGUMENT
    try:
        given = decode_pairs(data)
    except ValueError as error:
        return _refused(context, f"sets a map that is no map: {error}")
    control: dict[bytes, bytes] = {}
    lines = []
    faults = []
    for name, value in given:
        lower = name.lower()
        if lower == b"host" and map_type == _REQUEST:
            control.setdefault(b":authority", value)
        elif lower[:1] == b":":
            control[lower] = value
        elif (fault := acceptable(lower, value)) is not None:
            faults.append(fault)
        else:
            lines.append((name, lower, value))
    for name, value in list(control.items()):
        if (fault := _control_fault(map_type, name, value)) is not None:
            faults.append(fault)
            del control[name]
    if faults:
        _log.warn(
            "{vm}: in a map, the module {fault}: left out ({lines} such lines)",
            vm=context.vm.name,
            fault=faults[0],
            lines=len(faults),
        )
    if (len(lines) > _FREE_LINES or len(data) > _FREE_MAP) and not _has_room(context, len(data), len(lines)):
        return Status.BAD_ARGUMENT
    for name, value in control.items():
        _set_control(context.stream, map_type, name, value)
    spelled = {line[0]: line[1] for line in reversed(target.lines)}
    target.replace_all([(spelled.get(lower, name), value) for name, lower, value in lines])
    return Status.OK


def add_value(context: Context, map_type: int, name: bytes, value: bytes) -> Status:
    target = _for_line(context, map_type, name, value)
    if target.__class__ is Status:
        return target
    target.add(name, value)
    return _OK


def replace_value(context: Context, map_type: int, name: bytes, value: bytes) -> Status:
    target = _for_line(context, map_type, name, value)
    if target.__class__ is Status:
        return target
    target.set(name, value)
    return _OK


def _for_line(context: Context, map_type: int, name: bytes, value: bytes) -> Any:
    """Return the fields that an ordinary line may be written to, or a Status: the end of the matter for any other."""
    target = _writable(context, map_type)
    if target is None:
        return Status.BAD_ARGUMENT
    if name not in _plain or _splitting(value):
        if _is_control(map_type, name):
            return _write_control(context, map_type, name.lower(), value)
        if (fault := acceptable(name, value)) is not None:
            return _refused(context, fault)
        _remember(name)
    if len(target.lines) >= _FREE_LINES or len(name) + len(value) > _FREE_SIZE:
        return target if _has_room(context, len(name) + len(value), 1) else Status.BAD_ARGUMENT
    return target


def remove_value(context: Context, map_type: int, name: bytes) -> Status:
    target = _writable(context, map_type)
    if target is None:
        return Status.BAD_ARGUMENT
    if not _is_control(map_type, name):
        if len(target.lines) > _FREE_LINES:
            context.vm.check_deadline()
        target.remove(name)
    elif _CONTROL.get(name.lower()) == "authority":
        context.stream.request.authority = b""
    # A message cannot be without the rest of its control data: that stays, and the guest is told OK, as it must be.
    return Status.OK


def pairs(stream: Any, map_type: int) -> list[tuple[bytes, bytes]]:
    """Return a map as a guest sees it; empty where there is none now."""
    if stream is None:
        return []
    found: list[tuple[bytes, bytes]] = []
    if map_type == _REQUEST:
        request = stream.request
        if request.authority:
            found.append((b":authority", request.authority))
        if request.path:
            found.append((b":path", request.path))
        if request.method:
            found.append((b":method", request.method))
        if request.scheme:
            found.append((b":scheme", request.scheme))
        fields = request.headers
    elif map_type == _RESPONSE:
        response = stream.response
        if response is None:
            return []
        found.append((b":status", b"%d" % response.status))
        fields = response.headers
    else:
        fields = _trailers(stream, map_type)
        if fields is None:
            return []
    found += [(line[0], line[2]) for line in fields.lines]
    return found


def acceptable(name: bytes, value: bytes) -> str | None:
    """Return what is wrong with a header that a guest wants written, or None."""
    if not _NAME.fullmatch(name):
        return f"names a header {_shown(name)}, which is not a token"
    if _SPLITTING.search(value):
        return f"puts CR, LF or NUL into the value of {_shown(name)}"
    return None


def _trailers(stream: Any, map_type: int) -> Any:
    if map_type == _REQUEST_TRAILERS:
        return stream.request_trailers
    if map_type == _RESPONSE_TRAILERS:
        return stream.response_trailers
    return None


def _writable(context: Any, map_type: int) -> Any:
    """Return the fields of a map that may be written now, made if need be, or None."""
    stream = context.stream
    if stream is None or context.ended:
        return None
    if map_type == _REQUEST:
        return stream.request.headers if stream.request_headers_writable else None
    if map_type == _RESPONSE:
        response = stream.response
        return response.headers if response is not None and stream.response_headers_writable else None
    if map_type == _REQUEST_TRAILERS and context.open_trailers == 1:
        return stream.request_trailers if stream.request_trailers is not None else stream.add_trailers(True)
    if map_type == _RESPONSE_TRAILERS and context.open_trailers == 2:
        return stream.response_trailers if stream.response_trailers is not None else stream.add_trailers(False)
    return None


def _remember(name: bytes) -> None:
    """Spare the next use of a name that was found to be plain the looking into it."""
    if len(_plain) < _PLAIN_AT_MOST and len(name) <= _PLAIN_SIZE and name.lower() != b"host":
        _plain.add(name)


def _is_control(map_type: int, name: bytes) -> bool:
    return name[:1] == b":" or (map_type == _REQUEST and len(name) == 4 and name.lower() == b"host")


def _write_control(context: Context, map_type: int, name: bytes, value: bytes) -> Status:
    if (fault := _control_fault(map_type, name, value)) is not None:
        return _refused(context, fault)
    if len(value) > _FREE_SIZE and not _has_room(context, len(value), 1):
        return Status.BAD_ARGUMENT
    _set_control(context.stream, map_type, name, value)
    return Status.OK


def _control_fault(map_type: int, name: bytes, value: bytes) -> str | None:
    if map_type == _REQUEST and name in _CONTROL:
        valid = _VALID[_CONTROL[name]]
    elif map_type == _RESPONSE and name == b":status":
        valid = _STATUS
    else:
        return f"sets {_shown(name)}, which is no pseudo-header of this map"
    return None if valid.fullmatch(value) else f"sets {_shown(name)} to {_shown(value)}"


def _set_control(stream: Any, map_type: int, name: bytes, value: bytes) -> None:
    if map_type == _REQUEST:
        setattr(stream.request, _CONTROL[name], value)
        return
    status, response = int(value), stream.response
    if status != response.status:
        response.status = status
        try:
            response.reason = HTTPStatus(status).phrase.encode()
        except ValueError:
            response.reason = b""


def _shown(text: bytes) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


def _has_room(context: Any, size: int, lines: int) -> bool:
    """Count lines that a guest has written, for as long as the stream lives."""
    context.vm.check_deadline()  # each costs more the more there are
    size += ENTRY * lines
    if context.written + size > MAP_SIZE:
        context.vm.memory.tell(f"put more than {MAP_SIZE} bytes into the header fields of a stream")
        return False
    if not context.charge(size):
        return False
    context.written += size
    return True


def _refused(context: Context, fault: str) -> Status:
    _log.warn("{vm}: the module {fault}: refused", vm=context.vm.name, fault=fault)
    return Status.BAD_ARGUMENT
