"""Vary and selecting fields. The first line is the value of Vary, each further one a field of a request."""

from __future__ import annotations

from tests.cache.support import head
from twisted_wasmproxy.cache.vary import MOST_BYTES, MOST_MEMBERS, selecting, selects, vary_names
from twisted_wasmproxy.http.headers import Headers

__all__ = ["WORDS", "run"]

WORDS = [
    *(
        b"\n",
        b",",
        b", ",
        b";",
        b";q=0",
        b";q=0.500",
        b";q=1.0",
        b"; q=",
        b"*",
        b'"',
        b"\\",
        b" ",
        b"\t",
        b"=",
        b"\xff",
    ),
    *(b"accept", b"accept-encoding", b"Accept-Language: ", b"accept-charset", b"cookie: ", b"x-a", b"gzip", b"x-gzip"),
    *(b"text/html;level=1", b"de-DE", b"de,en;q=0.5,*;q=0", b"a," * 40, b"q=0.5;Q=0.3", b'a="b,c"'),
]


def run(data: bytes) -> None:
    names, _, rest = data.partition(b"\n")
    varying = vary_names(Headers([(b"Vary", part) for part in names.split(b"\r")]))
    lines = [line.partition(b":") for line in rest.split(b"\n") if line]
    request = Headers([(name.strip(), value.strip(b" \t")) for name, _, value in lines])
    if varying is None:
        return
    assert list(varying) == sorted(set(varying))
    assert all(name == name.lower() and name and b"," not in name for name in varying)
    selected = selecting(varying, request)
    assert tuple(name for name, _ in selected) == varying
    stored = head(vary=selected)
    assert selects(stored, request), "a request is not answered by its own response"
    for name, value in selected:
        assert (value is None) == (name not in request)
    normal = Headers([(name, value) for name, value in selected if value is not None])
    too_much = any(len(value) > MOST_BYTES or value.count(b",") >= MOST_MEMBERS for _, value in normal)
    if not too_much and not any(b'"' in value for _, value in normal):
        assert selecting(varying, normal) == selected, "what has been normalised is normal"
        assert selects(stored, normal)
    # A field more, or one less, that Vary names, is another request.
    for name, value in selected:
        other = request.copy()
        if value is None:
            other.add(name, b"x")
        else:
            other.remove(name)
        assert not selects(stored, other)
