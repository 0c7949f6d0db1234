"""What parts of a representation may be combined by (RFC 9111 section 3.4, RFC 9110 section 8.8)."""

from __future__ import annotations

import pytest

from twisted_wasmproxy.cache.combining import same_representation, strong_validator
from twisted_wasmproxy.http.headers import Headers

LATER = (b"Date", b"Sun, 06 Nov 1994 08:59:37 GMT")
MODIFIED = (b"Last-Modified", b"Sun, 06 Nov 1994 08:49:37 GMT")


@pytest.mark.parametrize(
    ("fields", "validator"),
    [
        ([(b"ETag", b'"a"'), MODIFIED, LATER], b'"a"'),
        ([(b"ETag", b'"a"'), (b"ETag", b'"a"')], b'"a"'),
        ([MODIFIED, LATER], MODIFIED[1]),
        ([(b"ETag", b'W/"a"'), MODIFIED, LATER], None),
        ([(b"ETag", b'"a"'), (b"ETag", b'"b"')], None),
        ([(b"ETag", b"a")], None),
        ([(b"ETag", b'"a"b"')], None),
        ([(b"ETag", b'"')], None),
        ([MODIFIED, (b"Date", MODIFIED[1])], None),
        ([MODIFIED], None),
        ([], None),
    ],
)
def test_only_one_strong_validator_beyond_doubt_is_one(fields: list[tuple[bytes, bytes]], validator: bytes) -> None:
    assert strong_validator(Headers(fields)) == validator


def test_nothing_is_combined_by_a_validator_that_is_none() -> None:
    doubtful = Headers([(b"ETag", b'"a"'), (b"ETag", b'"b"')])
    assert not same_representation(doubtful, doubtful)
    assert same_representation(Headers([(b"ETag", b'"a"')]), Headers([(b"etag", b'"a"')]))
