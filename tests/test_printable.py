"""Text from outside steers neither a terminal nor a log."""

from __future__ import annotations

import io
import unicodedata
from typing import Any

import pytest
from twisted.logger import globalLogPublisher, textFileLogObserver

from twisted_wasmproxy.logs import Logger
from twisted_wasmproxy.printable import printable, printable_lines

STEERING = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp", "Cs")]
REORDERING = [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]


@pytest.fixture
def log() -> Any:
    """What a file or a terminal gets."""
    stream = io.StringIO()
    observer = textFileLogObserver(stream)
    globalLogPublisher.addObserver(observer)
    yield stream
    globalLogPublisher.removeObserver(observer)


def test_nothing_that_steers_is_left() -> None:
    text = printable("".join(STEERING + REORDERING))
    assert text.isascii()
    assert text.isprintable()
    assert printable("\x1b]0;x\x07\r\n\x9b\u202e\udc80") == r"\x1b]0;x\x07\r\n\x9b\u202e\udc80"


@pytest.mark.parametrize("text", ["", "plain", "Grüße, 漢字, العربية, עברית", "a\xa0b\u3000c", "\\x1b"])
def test_what_does_not_steer_stays(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_several_lines_stay_so_where_they_may() -> None:
    assert printable_lines("a\n\tb\r\n\x0b\x85") == "a\n\tb\\r\n\\x0b\\x85"


@pytest.mark.parametrize("value", ["\x1b[2J\x9b\r\u202e", ValueError("\x1b[2J\x9b\r\u202e"), b"\x1b[2J\r\xe2\x80\xae"])
def test_what_is_logged_is_made_printable(log: Any, value: object) -> None:
    Logger(namespace="twisted_wasmproxy.test").error("said: {value}", value=value)
    (line,) = log.getvalue().splitlines()
    assert "\\x1b[2J" in line
    assert line.isprintable()


def test_a_line_feed_forges_no_line(log: Any) -> None:
    Logger(namespace="twisted_wasmproxy.test").error("said: {value}", value="a\n2026-01-01T00:00:00 [x#info] forged")
    assert [line[:1] for line in log.getvalue().splitlines()][1:] == ["\t"]
