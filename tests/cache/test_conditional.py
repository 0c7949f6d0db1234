"""Conditional requests answered from what is stored (RFC 9110 section 13, RFC 9111 section 4.3.2)."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.conditional import (
    is_conditional,
    needs_origin,
    not_modified_headers,
    outcome,
    range_applies,
)
from twisted_wasmproxy.cache.dates import http_date
from twisted_wasmproxy.cache.entry import StoredHead
from twisted_wasmproxy.http.headers import Headers

MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
IMF = b"Sun, 06 Nov 1994 08:49:37 GMT"
DAY = 86400


def stored(*fields: tuple[bytes, bytes], status: int = 200, received: float = MODIFIED + DAY) -> StoredHead:
    return StoredHead(
        key=b"http://a/\0",
        url=b"http://a/",
        status=status,
        reason=b"",
        headers=Headers(fields),
        request_time=received - 1,
        response_time=received,
    )


def asked(name: bytes, *values: bytes) -> Headers:
    return Headers([(name, value) for value in values])


def if_none_match(tag: bytes, *values: bytes) -> int:
    return outcome(b"GET", asked(b"If-None-Match", *values), stored((b"ETag", tag)))


def if_modified_since(value: bytes, *fields: tuple[bytes, bytes], received: float = MODIFIED + DAY) -> int:
    return outcome(b"GET", asked(b"If-Modified-Since", value), stored(*fields, received=received))


# If-None-Match


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        (b'"a"', [b'"a"']),
        (b'"a"', [b'W/"a"']),
        (b'W/"a"', [b'"a"']),
        (b'W/"a"', [b'W/"a"']),
        (b'""', [b'""']),
        (b'"a"', [b'"a", "b", "c"']),
        (b'"a"', [b'"b", "a", "c"']),
        (b'"a"', [b'"b","c","a"']),
        (b'"a"', [b'"b"\t ,\t W/"a" \t']),
        (b'"a"', [b',, "b",, ,"a",']),
        (b'"a"', [b'"b"', b'"c", "a"']),
        (b'"a,b"', [b'"a,b"']),
        (b'"a,b"', [b'"x", "a,b"']),
        (b'"W/"', [b'"W/"']),
        (b'"abcdef\xc3\xbc"', [b'"abcdef\xc3\xbc"']),
        (b'"\\"', [b'"\\", "x"']),  # there is no escaping within an entity-tag
        (b'"a"', [b"*"]),
        (b'"a"', [b" * "]),
        (b"not valid", [b"*"]),
    ],
)
def test_an_entity_tag_that_the_client_names_is_not_sent_again(tag: bytes, values: list[bytes]) -> None:
    assert if_none_match(tag, *values) == 304


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        (b'"a"', [b'"b"']),
        (b'"a"', [b'"A"']),
        (b'"a,b"', [b'"a", "b"']),
        (b'"a"', [b'"b", "c"']),
        (b'"W/a"', [b'W/"a"']),
        (b'"a"', [b""]),
        (b'"a"', [b",,"]),
    ],
)
def test_another_entity_tag_gets_the_response(tag: bytes, values: list[bytes]) -> None:
    assert if_none_match(tag, *values) == 200


@pytest.mark.parametrize(
    "values",
    [
        [b"a"],
        [b'w/"a"'],
        [b'W\\"a"'],
        [b'W"a"'],
        [b'W/ "a"'],
        [b'"a'],
        [b'a"'],
        [b"'a'"],
        [b'"a" "b"'],
        [b'"a", b'],
        [b'b, "a"'],
        [b'"a", *'],
        [b"*", b'"a"'],
        [b"**"],
        [b'"a"; x'],
        [b'"b c", "a"'],
        [b'"\x7f", "a"'],
    ],
)
def test_a_list_that_is_not_one_of_entity_tags_gets_the_response(values: list[bytes]) -> None:
    assert if_none_match(b'"a"', *values) == 200


@pytest.mark.parametrize("tag", [b"a", b'w/"a"', b'W"a"', b'"a', b'"a" "a"', b"", b"*"])
def test_an_etag_that_is_not_valid_matches_nothing(tag: bytes) -> None:
    assert if_none_match(tag, tag) == (304 if tag == b"*" else 200)
    assert if_none_match(tag, b'"a"') == 200


def test_several_etags_match_only_if_they_are_one() -> None:
    headers = asked(b"If-None-Match", b'"a"')
    assert outcome(b"GET", headers, stored((b"ETag", b'"a"'), (b"ETag", b'"b"'))) == 200
    assert outcome(b"GET", headers, stored((b"ETag", b'"a"'), (b"ETag", b'"a"'))) == 304


def test_without_etag_only_the_star_matches() -> None:
    head = stored((b"Last-Modified", IMF))
    assert outcome(b"GET", asked(b"If-None-Match", b'"a"'), head) == 200
    assert outcome(b"GET", asked(b"If-None-Match", b"*"), head) == 304


@pytest.mark.parametrize("tags", [b'"b"', b"malformed", b""])
def test_if_none_match_takes_precedence(tags: bytes) -> None:
    head = stored((b"ETag", b'"a"'), (b"Last-Modified", IMF))
    headers = Headers([(b"If-Modified-Since", IMF), (b"If-None-Match", tags)])
    assert outcome(b"GET", headers, head) == 200


def test_if_none_match_that_matches_wins_over_an_old_date() -> None:
    head = stored((b"ETag", b'"a"'), (b"Last-Modified", IMF))
    headers = Headers([(b"If-Modified-Since", http_date(MODIFIED - DAY)), (b"If-None-Match", b'"a"')])
    assert outcome(b"GET", headers, head) == 304


def test_a_long_malformed_list_takes_no_long_time() -> None:
    began = time.process_time()
    for value in (b" " * 60000 + b"x", b'"b"' + b"\t " * 30000 + b"x", b"," * 60000 + b"x", b'"b' * 20000):
        assert if_none_match(b'"a"', value) == 200
    assert time.process_time() - began < 1.0


# If-Modified-Since


@pytest.mark.parametrize(
    "value",
    [
        IMF,
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        http_date(MODIFIED + 1),
        http_date(MODIFIED + 10 * 365 * DAY),
    ],
)
def test_what_was_not_modified_since_is_not_sent_again(value: bytes) -> None:
    assert if_modified_since(value, (b"Last-Modified", IMF)) == 304


@pytest.mark.parametrize(
    "value",
    [
        http_date(MODIFIED - 1),
        b"Saturday, 05-Nov-94 08:49:37 GMT",
        b"Sat Nov  5 08:49:37 1994",
        b"",
        b"0",
        b"-1",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"1994-11-06T08:49:37Z",
        IMF + b", " + IMF,
        b"\xff" * 29,
    ],
)
def test_an_older_date_or_none_at_all_gets_the_response(value: bytes) -> None:
    assert if_modified_since(value, (b"Last-Modified", IMF)) == 200


def test_several_dates_are_none() -> None:
    assert outcome(b"GET", asked(b"If-Modified-Since", IMF, IMF), stored((b"Last-Modified", IMF))) == 200


def test_without_last_modified_date_is_compared() -> None:
    assert if_modified_since(IMF, (b"Date", IMF)) == 304
    assert if_modified_since(http_date(MODIFIED - 1), (b"Date", IMF)) == 200


def test_without_date_the_time_of_receipt_is_compared() -> None:
    assert if_modified_since(IMF, received=MODIFIED) == 304
    assert if_modified_since(IMF, received=MODIFIED + 0.5) == 200


def test_a_last_modified_that_cannot_be_read_has_no_substitute() -> None:
    later = http_date(MODIFIED + DAY)
    assert if_modified_since(later, (b"Last-Modified", b"yesterday"), (b"Date", IMF)) == 200
    assert if_modified_since(later, (b"Last-Modified", IMF), (b"Last-Modified", IMF), (b"Date", IMF)) == 200


# Where they count


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("status", [200, 206])
def test_get_and_head_of_a_stored_200_or_206(method: bytes, status: int) -> None:
    head = stored((b"ETag", b'"a"'), (b"Last-Modified", IMF), status=status)
    assert outcome(method, asked(b"If-None-Match", b'"a"'), head) == 304
    assert outcome(method, asked(b"If-Modified-Since", IMF), head) == 304
    assert outcome(method, asked(b"If-None-Match", b'"b"'), head) == status
    assert outcome(method, Headers(), head) == status


@pytest.mark.parametrize("status", [203, 204, 299, 301, 404, 410, 416, 500, 999])
def test_other_stored_statuses_are_sent_as_they_are(status: int) -> None:
    head = stored((b"ETag", b'"a"'), (b"Last-Modified", IMF), status=status)
    for headers in (asked(b"If-None-Match", b'"a"'), asked(b"If-None-Match", b"*"), asked(b"If-Modified-Since", IMF)):
        assert outcome(b"GET", headers, head) == status


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"get", b"M-SEARCH"])
def test_other_methods_are_not_answered_by_a_304(method: bytes) -> None:
    head = stored((b"ETag", b'"a"'), (b"Last-Modified", IMF))
    assert outcome(method, asked(b"If-None-Match", b'"a"'), head) == 200
    assert outcome(method, asked(b"If-Modified-Since", IMF), head) == 200


@pytest.mark.parametrize(
    ("name", "conditional", "origin"),
    [
        (b"If-None-Match", True, False),
        (b"IF-MODIFIED-SINCE", True, False),
        (b"If-Match", True, True),
        (b"if-unmodified-since", True, True),
        (b"If-Range", False, False),
        (b"If", False, False),
    ],
)
def test_which_preconditions_there_are_and_whose(name: bytes, conditional: bool, origin: bool) -> None:
    headers = Headers([(b"Accept", b"*/*"), (name, b"x")])
    assert is_conditional(headers) is conditional
    assert needs_origin(headers) is origin


# If-Range


@pytest.mark.parametrize(
    ("fields", "value", "applies"),
    [
        ([(b"ETag", b'"a"')], b'"a"', True),
        ([(b"ETag", b'"a"')], b'"b"', False),
        ([(b"ETag", b'"a"')], b'W/"a"', False),
        ([(b"ETag", b'W/"a"')], b'W/"a"', False),
        ([(b"ETag", b'W/"a"')], b'"a"', False),
        ([(b"ETag", b'"a"')], b'"a", "b"', False),
        ([(b"ETag", b'"a" "a"')], b'"a" "a"', False),
        ([(b"ETag", b"a")], b"a", False),
        ([(b"ETag", b'"a"')], b"*", False),
        ([(b"ETag", b'"a"')], b"", False),
        ([(b"ETag", b'"')], b'"', False),
        ([], b'"a"', False),
    ],
)
def test_if_range_compares_entity_tags_strongly(fields: list[tuple[bytes, bytes]], value: bytes, applies: bool) -> None:
    assert range_applies(asked(b"If-Range", value), stored(*fields)) is applies


@pytest.mark.parametrize(
    ("value", "date", "applies"),
    [
        (IMF, MODIFIED + DAY, True),
        (b"Sun Nov  6 08:49:37 1994", MODIFIED + DAY, True),
        (IMF, MODIFIED + 60, True),
        (IMF, MODIFIED + 59, False),
        (IMF, MODIFIED, False),
        (IMF, MODIFIED - DAY, False),
        (http_date(MODIFIED + 1), MODIFIED + DAY, False),
        (http_date(MODIFIED - 1), MODIFIED + DAY, False),
        (b"yesterday", MODIFIED + DAY, False),
    ],
)
def test_if_range_takes_the_very_date_where_it_is_strong(value: bytes, date: int, applies: bool) -> None:
    head = stored((b"Last-Modified", IMF), (b"Date", http_date(date)))
    assert range_applies(asked(b"If-Range", value), head) is applies


def test_if_range_with_a_date_needs_last_modified_and_date() -> None:
    headers = asked(b"If-Range", IMF)
    later = http_date(MODIFIED + DAY)
    assert not range_applies(headers, stored((b"Date", later)))
    assert not range_applies(headers, stored((b"Last-Modified", IMF)))
    assert not range_applies(headers, stored((b"Last-Modified", b"?"), (b"Date", later)))


def test_without_if_range_the_range_applies_and_with_two_it_does_not() -> None:
    head = stored((b"ETag", b'"a"'))
    assert range_applies(Headers(), head)
    assert not range_applies(asked(b"If-Range", b'"a"', b'"a"'), head)


# The fields of a 304


FULL = [
    (b"Date", b"d"),
    (b"Server", b"s"),
    (b"Content-Type", b"text/plain"),
    (b"Content-Length", b"3"),
    (b"Content-Encoding", b"gzip"),
    (b"Content-Language", b"en"),
    (b"Content-Location", b"/x"),
    (b"Last-Modified", IMF),
    (b"etag", b'"a"'),
    (b"Cache-Control", b"max-age=1"),
    (b"Cache-Control", b"public"),
    (b"CDN-Cache-Control", b"max-age=2"),
    (b"Expires", b"e"),
    (b"Vary", b"Accept"),
    (b"Set-Cookie", b"a=b"),
    (b"Set-Cookie2", b"a=b"),
    (b"Via", b"1.1 up"),
    (b"Cache-Status", b"up; hit"),
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Accept-Ranges", b"bytes"),
    (b"Content-Range", b"bytes 0-1/2"),
]


def test_a_304_has_what_updates_a_cache_and_nothing_of_the_content() -> None:
    assert list(not_modified_headers(Headers(FULL))) == [
        (b"Date", b"d"),
        (b"Content-Location", b"/x"),
        (b"etag", b'"a"'),
        (b"Cache-Control", b"max-age=1"),
        (b"Cache-Control", b"public"),
        (b"CDN-Cache-Control", b"max-age=2"),
        (b"Expires", b"e"),
        (b"Vary", b"Accept"),
        (b"Via", b"1.1 up"),
        (b"Cache-Status", b"up; hit"),
        (b"Access-Control-Allow-Origin", b"*"),
    ]


def test_last_modified_stands_in_for_an_etag_that_is_not_there() -> None:
    assert list(not_modified_headers(Headers([(b"Last-Modified", IMF), (b"Date", b"d")]))) == [
        (b"Date", b"d"),
        (b"Last-Modified", IMF),
    ]


def test_the_fields_of_a_304_are_a_copy() -> None:
    headers = Headers(FULL)
    not_modified_headers(headers).add(b"Age", b"1")
    assert list(headers) == FULL


# Whatever comes


values = st.one_of(
    st.binary(max_size=40),
    st.text('"W/ab,* \t\\', max_size=20).map(str.encode),
    st.sampled_from([IMF, b'"a"', b'W/"a"', b"*"]),
)


@given(st.lists(values, max_size=3), st.lists(values, max_size=2), st.lists(values, max_size=2), values)
@example([b'"a'], [], [b'"a'], b'"a')
def test_nothing_raises_and_a_304_is_earned(
    matches: list[bytes], dates: list[bytes], tags: list[bytes], modified: bytes
) -> None:
    head = stored(*[(b"ETag", tag) for tag in tags], (b"Last-Modified", modified), (b"Date", IMF))
    headers = Headers(
        [(b"If-None-Match", value) for value in matches] + [(b"If-Modified-Since", value) for value in dates]
    )
    status = outcome(b"GET", headers, head)
    if status == 304 and matches:
        joined = b",".join(matches)
        assert joined.strip(b" \t") == b"*" or tags[0].removeprefix(b"W/") in joined
    elif status == 304:
        assert len(dates) == 1
    else:
        assert status == 200
    for value in matches + dates:
        if range_applies(asked(b"If-Range", value), head):
            assert value in tags or head.headers.get(b"last-modified") is not None


opaque = st.lists(st.one_of(st.just(0x21), st.integers(0x23, 0x7E), st.integers(0x80, 0xFF)), max_size=5).map(
    lambda codes: b'"' + bytes(codes) + b'"'
)
entity_tags = st.builds(lambda weak, tag: (b"W/" if weak else b"") + tag, st.booleans(), opaque)


@given(st.lists(entity_tags, min_size=1, max_size=5), entity_tags, st.sampled_from([b",", b", ", b" ,\t", b",,"]))
def test_a_valid_list_matches_just_its_members(tags: list[bytes], tag: bytes, separator: bytes) -> None:
    members = {member.removeprefix(b"W/") for member in tags}
    joined = separator.join(tags)
    assert if_none_match(tag, joined) == (304 if tag.removeprefix(b"W/") in members else 200)
    assert if_none_match(tags[-1], joined) == 304
    assert if_none_match(tags[-1], *tags) == 304
