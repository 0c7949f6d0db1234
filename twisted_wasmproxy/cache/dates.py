"""HTTP-date, read and written (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import time
from datetime import date
from email.utils import formatdate
from functools import lru_cache

__all__ = ["http_date", "parse_http_date"]

_DAYS = (b"mon", b"tue", b"wed", b"thu", b"fri", b"sat", b"sun")
_LONG_DAYS = (b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday", b"sunday")
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_EPOCH = date(1970, 1, 1).toordinal()
_IMF_LENGTH = len("Sun, 06 Nov 1994 08:49:37 GMT")
_RFC850_REST = len(", 06-Nov-94 08:49:37 GMT")
_ASCTIME_LENGTH = len("Sun Nov  6 08:49:37 1994")


def http_date(seconds: float) -> bytes:
    """Return a time since the epoch as an IMF-fixdate; fractions of a second are dropped."""
    return _fixdate(int(seconds))


@lru_cache(maxsize=16)  # nearly all are of the present second
def _fixdate(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode("ascii")


def parse_http_date(value: bytes, now: float | None = None) -> int | None:
    """Return the seconds since the epoch that a field value means; None if it is none of the three forms exactly.

    Letters compare without case, as caches should (RFC 9111 section 4.2); that the day of the week is the right one is
    not asked. The two-digit year of the RFC 850 form is one not more than 50 years after `now` (None: by the clock).
    """
    value = value.lower()
    if len(value) == _IMF_LENGTH and value[3:5] == b", " and value[:3] in _DAYS:
        if value[7:8] != b" " or value[11:12] != b" " or value[16:17] != b" " or value[25:] != b" gmt":
            return None
        return _seconds(_number(value[12:16]), value[8:11], _number(value[5:7]), value[17:25])
    if value[3:4] == b" ":
        return _asctime(value)
    return _rfc850(value, time.time() if now is None else now)


def _asctime(value: bytes) -> int | None:
    if len(value) != _ASCTIME_LENGTH or value[:3] not in _DAYS:
        return None
    if value[7:8] != b" " or value[10:11] != b" " or value[19:20] != b" ":
        return None
    day = value[8:10]
    if day[:1] == b" ":
        day = b"0" + day[1:]
    return _seconds(_number(value[20:]), value[4:7], _number(day), value[11:19])


def _rfc850(value: bytes, now: float) -> int | None:
    weekday, _, _ = value.partition(b",")
    rest = value[len(weekday) :]
    if weekday not in _LONG_DAYS or len(rest) != _RFC850_REST:
        return None
    if rest[:2] != b", " or rest[4:5] != b"-" or rest[8:9] != b"-" or rest[11:12] != b" " or rest[20:] != b" gmt":
        return None
    month, day, year, clock = rest[5:8], _number(rest[2:4]), _number(rest[9:11]), rest[12:20]
    if year is None:
        return None
    at = time.gmtime(now)
    latest = (at.tm_year + 50, at.tm_mon, at.tm_mday, time.strftime("%H:%M:%S", at).encode())
    year += at.tm_year - at.tm_year % 100 + 100
    while (year, _MONTHS.get(month, 0), day or 0, clock) > latest:
        year -= 100
    return _seconds(year, month, day, clock)


def _number(digits: bytes) -> int | None:
    return int(digits) if digits.isdigit() else None


def _seconds(year: int | None, month: bytes, day: int | None, clock: bytes) -> int | None:
    if clock[2:3] != b":" or clock[5:6] != b":":
        return None
    hour, minute, second = _number(clock[:2]), _number(clock[3:5]), _number(clock[6:])
    number = _MONTHS.get(month)
    if year is None or number is None or day is None or hour is None or minute is None or second is None:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    try:
        days = date(year, number, day).toordinal() - _EPOCH
    except ValueError:
        return None
    # A leap second counts as the second before it: never later than what was said (RFC 9111 section 4.2).
    return days * 86400 + hour * 3600 + minute * 60 + min(second, 59)
