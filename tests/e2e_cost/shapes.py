"""Awkward values of a field."""

from __future__ import annotations

__all__ = ["SHAPES", "SIZE", "lines"]

SIZE = 60_000
"""Bytes of a value."""

_UNITS: dict[str, bytes] = {
    "commas": b",",
    "commas and spaces": b", ",
    "semicolons": b";",
    "equals signs": b"=",
    "colons": b":",
    "at signs": b"@",
    "slashes": b"/",
    "dots": b".",
    "stars": b"*,",
    "minus signs": b"-",
    "one letter": b"a",
    "nines": b"9",
    "zeros": b"0",
    "members": b"a,",
    "members with spaces": b"a , ",
    "numbers": b"1,",
    "parameters": b";a",
    "parameters with values": b";a=b",
    "members with parameters": b"a;b=c,",
    "weights": b"a;q=0.001, ",
    "assignments": b"a=1,",
    "flags": b"a=?1,",
    "quotes": b'"',
    "quoted strings": b'"a",',
    "quoted arguments": b'a="b,c",',
    "escapes": b'"\\"",',
    "backslashes": b"\\",
    "opening brackets": b"(",
    "comments": b"(a)",
    "inner lists": b"(a b),",
    "square brackets": b"[",
    "percent signs": b"%",
    "percent-encodings": b"%41",
    "UTF-8": "é".encode(),
    "octets beyond ASCII": b"\xff",
    "tabs between": b"a\t",
    "spaces between": b"a ",
    "directives": b"max-age=1,",
    "directives of two kinds": b"no-cache, private, ",
    "entity tags": b'"a", ',
    "weak entity tags": b'W/"a",',
    "ranges": b"0-0,",
    "cookies": b"a=b; ",
    "hops": b"1.1 a, ",
    "forwarded elements": b'for="[::1]", ',
    "base 64": b"QUJD",
    "dates": b"Tue, 15 Nov 1994 12:45:26 GMT, ",
    "dot segments": b"/..",
    "URLs": b"http://a/,",
    "names of fields": b"accept-language,",
}

_STARTS: dict[str, tuple[bytes, bytes]] = {
    "a quote without end": (b'a="', b"b,"),
    "a quote without end, escaped": (b'a="', b'\\"'),
    "an argument of names": (b'no-cache="', b"a,"),
    "an argument of numbers": (b"max-age=", b"9"),
    "many ranges": (b"bytes=", b"0-0,"),
    "a range of zeros": (b"bytes=0-", b"0"),
    "a range from far": (b"bytes=", b"9"),
    "a part of zeros": (b"bytes 0-1/", b"0"),
    "credentials": (b"Basic ", b"QUJD"),
    "a URL": (b"http://proxy.test/", b"a/"),
    "a weight of zeros": (b"a;q=0.", b"0"),
}


def _filled(start: bytes, unit: bytes) -> bytes:
    return (start + unit * (SIZE // len(unit)))[:SIZE].strip(b" \t")


def _distinct(form: str, step: int = 1) -> bytes:
    parts = []
    size = 0
    number = 0
    while size < SIZE - 10:
        part = form.format(number * step, number * step + 1).encode()
        parts.append(part)
        size += len(part) + 1
        number += 1
    return b",".join(parts)


SHAPES: dict[str, bytes] = {
    **{name: _filled(b"", unit) for name, unit in _UNITS.items()},
    **{name: _filled(start, unit) for name, (start, unit) in _STARTS.items()},
    "distinct members": _distinct("x-{0}"),
    "distinct assignments": _distinct("a{0}=1"),
    "distinct weights": _distinct("a{0};q=0.5"),
    "distinct ranges": b"bytes=" + _distinct("{0}-{1}", 9),
    "falling ranges": b"bytes=" + b",".join(_distinct("{0}-{1}", 9).split(b",")[::-1]),
    "spaces inside": b"a" + b" " * (SIZE - 2) + b"b",
    "tabs inside": b"a" + b"\t" * (SIZE - 2) + b"b",
    "spaces before a comma": b"a" + b" " * (SIZE - 3) + b",b",
}


def lines(name: bytes, value: bytes, count: int) -> bytes:
    """Return a value as so many lines of its field."""
    size = -(-len(value) // count)
    return b"".join(name + b": " + value[at : at + size].strip(b" \t") + b"\r\n" for at in range(0, len(value), size))
