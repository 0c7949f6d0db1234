"""HTTP-date: the three forms and nothing else (RFC 9110 section 5.6.7)."""

import calendar
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.dates import http_date, parse_http_date

EXAMPLE = 784111777
NOW = calendar.timegm((2026, 11, 22, 10, 0, 0))


@pytest.mark.parametrize(
    "value",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sunday, 06-Nov-94 08:49:37 GMT",
        b"Sun Nov  6 08:49:37 1994",
        # RFC 9111 section 4.2: caches compare them without case.
        b"SUN, 06 NOV 1994 08:49:37 gmt",
        b"sunday, 06-nov-94 08:49:37 GMT",
        b"Sun nov  6 08:49:37 1994",
        # The day of the week says nothing that the rest does not.
        b"Mon, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_the_three_forms_mean_the_same(value):
    assert parse_http_date(value, NOW) == EXAMPLE


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"0", b"-1", b"now", b"784111777"),
        *(b"Sun, 06 Nov 1994 08:49:37 UTC", b"Sun, 06 Nov 1994 08:49:37 AEST", b"Sun, 06 Nov 1994 08:49:37 +0000"),
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun,  6 Nov 1994 08:49:37 GMT",
        b"Sun, 06  Nov  1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 31 Apr 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Non 1994 08:49:37 GMT",
        b"Sun, +6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b" Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        b"Xyz, 06 Nov 1994 08:49:37 GMT",
        *(b"Sun, 06-Nov-94 08:49:37 GMT", b"Sunday, 6-Nov-94 08:49:37 GMT", b"Sunday 06-Nov-94 08:49:37 GMT"),
        *(b"Sunday, 06 Nov 94 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37", b"Sunday, 30-Feb-94 08:49:37 GMT"),
        *(b"Sun Nov 6 08:49:37 1994", b"Sun Nov  6 08:49:37 1994 GMT", b"Sun Nov  6 08:49:37 94"),
    ],
)
def test_what_is_not_exactly_one_of_them_is_no_date(value):
    assert parse_http_date(value, NOW) is None


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (b"Thursday, 18-Aug-50 02:01:18 GMT", 2050),
        (b"Thursday, 22-Nov-76 10:00:00 GMT", 2076),
        (b"Thursday, 22-Nov-76 10:00:01 GMT", 1976),
        (b"Thursday, 01-Jan-77 00:00:00 GMT", 1977),
        (b"Thursday, 01-Jan-00 00:00:00 GMT", 2000),
        (b"Thursday, 31-Dec-26 00:00:00 GMT", 2026),
    ],
)
def test_a_two_digit_year_is_not_more_than_50_years_from_now(value, year):
    assert time.gmtime(parse_http_date(value, NOW)).tm_year == year


def test_a_two_digit_year_can_be_of_the_next_century():
    late = calendar.timegm((2099, 12, 31, 23, 59, 59))
    assert time.gmtime(parse_http_date(b"Thursday, 01-Jan-00 00:00:00 GMT", late)).tm_year == 2100


def test_a_leap_second_is_never_later_than_it_was():
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == calendar.timegm((2016, 12, 31, 23, 59, 59))


@given(st.integers(0, calendar.timegm((9949, 12, 31, 23, 59, 59))), st.integers(-49 * 365, 49 * 365))
def test_what_is_written_is_read_again_in_all_forms(seconds, shift):
    when = datetime.fromtimestamp(seconds, timezone.utc)
    assert parse_http_date(http_date(seconds)) == seconds
    asctime = f"{when:%a %b} {when.day:2d} {when:%H:%M:%S} {when.year:04d}"
    assert parse_http_date(asctime.encode()) == seconds
    rfc850 = f"{when:%A, %d-%b}-{when.year % 100:02d} {when:%H:%M:%S} GMT"
    assert parse_http_date(rfc850.encode(), seconds + shift * 86400) == seconds


@given(st.binary(max_size=40) | st.text("Sun, 06NovGMT:1948-day", max_size=32).map(str.encode), st.floats(0, 1e10))
def test_no_value_raises(value, now):
    assert isinstance(parse_http_date(value, now), int | None)
