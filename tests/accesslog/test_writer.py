"""The writer of the access log: lines reach the file whole and in order, and nothing it meets holds up its caller."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from tests.support.reactor import run
from twisted_wasmproxy.accesslog import AccessLog, TransactionRecord
from twisted_wasmproxy.accesslog.writer import LineWriter
from twisted_wasmproxy.config.model import AccessLogConfig


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What is logged in the meantime."""
    seen: list[LogEvent] = []
    globalLogPublisher.addObserver(seen.append)
    yield seen
    globalLogPublisher.removeObserver(seen.append)


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for what another thread does and tells nobody of."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def texts(events: list[LogEvent]) -> list[str]:
    return [text for event in events if "access log" in (text := formatEvent(event))]


def test_lines_are_written_in_order_and_stop_writes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writer = LineWriter(path, interval=3600)
    writer.start()
    for number in range(20_000):
        writer.write(b"line %d\n" % number)
    writer.stop()
    assert path.read_bytes() == b"".join(b"line %d\n" % number for number in range(20_000))


def test_a_line_reaches_the_file_without_further_ones_within_the_interval(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "a.log", interval=0.02)
    writer.start()
    writer.write(b"one\n")
    until(lambda: (tmp_path / "a.log").read_bytes() == b"one\n")
    writer.stop()


def test_a_full_batch_is_written_at_once(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "a.log", interval=3600, batch=100)
    writer.start()
    for _ in range(10):
        writer.write(b"0123456789\n")
    until(lambda: (tmp_path / "a.log").stat().st_size == 110)
    writer.stop()


def test_what_is_there_is_appended_to_and_others_may_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    for line in (b"old\n", b"new\n"):
        writer = LineWriter(path)
        writer.start()
        writer.write(line)
        writer.stop()
    assert path.read_bytes() == b"old\nnew\n"
    assert path.stat().st_mode & 0o007 == 0


def test_after_a_rename_reopen_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writer = LineWriter(path, interval=3600, batch=1)
    writer.start()
    writer.write(b"before\n")
    until(lambda: path.read_bytes() == b"before\n")
    path.rename(tmp_path / "a.log.1")
    writer.reopen()
    writer.write(b"after\n")
    until(lambda: path.exists() and path.read_bytes() == b"after\n")
    writer.stop()
    assert (tmp_path / "a.log.1").read_bytes() == b"before\n"


def test_a_reopen_that_fails_stays_with_the_old_file_and_is_told(tmp_path: Path, events: list[LogEvent]) -> None:
    path = tmp_path / "sub" / "a.log"
    path.parent.mkdir()
    writer = LineWriter(path, interval=3600, batch=1)
    writer.start()
    path.parent.rename(tmp_path / "moved")
    writer.reopen()
    until(lambda: texts(events))
    assert "No such file or directory" in texts(events)[0]
    path.parent.mkdir()
    writer.write(b"x\n")
    until(lambda: path.exists() and path.read_bytes() == b"x\n")
    writer.stop()


def test_a_file_that_cannot_be_opened_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LineWriter(tmp_path / "no" / "a.log").start()


def test_a_full_disk_is_told_once_and_neither_blocks_nor_fails_the_caller(events: list[LogEvent]) -> None:
    writer = LineWriter(Path("/dev/full"), interval=0.005)
    writer.start()
    for number in range(50):
        writer.write(b"line %d\n" % number)
        time.sleep(0.002)
    until(lambda: texts(events))
    writer.stop()
    assert texts(events) == [texts(events)[0]]
    assert "/dev/full: No space left on device" in texts(events)[0]


def test_a_reader_that_does_not_read_costs_lines_beyond_the_capacity_only(
    tmp_path: Path, events: list[LogEvent]
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    capacity = 1024 * 1024
    writer = LineWriter(path, interval=0.005, capacity=capacity)
    writer.start()
    line = b"x" * 1023 + b"\n"
    begun = time.monotonic()
    for _ in range(3000):
        writer.write(line)
    assert time.monotonic() - begun < 1.0
    until(lambda: texts(events))
    assert "the queue is full, lines are dropped" in texts(events)[0]
    os.set_blocking(reader, True)
    received = bytearray()

    def read() -> None:
        while data := os.read(reader, 65536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: len(texts(events)) >= 2)
    writer.stop()
    thread.join(10)
    os.close(reader)
    kept, rest = divmod(len(received), len(line))
    assert rest == 0
    assert bytes(received) == line * kept
    assert capacity // 1024 <= kept < 3000
    assert f"{3000 - kept} lines were dropped" in texts(events)[1]


def test_a_stop_does_not_wait_for_ever_for_a_reader_that_does_not_read(tmp_path: Path, events: list[LogEvent]) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = LineWriter(path)
    writer.start()
    writer.write(b"x" * 1024 * 1024)
    begun = time.monotonic()
    writer.stop(timeout=0.1)
    assert time.monotonic() - begun < 5
    assert "still blocked" in texts(events)[0]
    os.close(reader)


def test_the_access_log_writes_records_and_stops_by_a_deferred(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(AccessLogConfig(path, '%<chi> "%<{User-Agent}cqh>" %<pssc>'))

    def work() -> object:
        log.start()
        log.log(TransactionRecord(client_address="192.0.2.1", status=204))
        log.reopen()
        log.log(TransactionRecord(client_address="2001:db8::1", status=404))
        return log.stop()

    assert run(work) is None
    assert path.read_text() == '192.0.2.1 "-" 204\n2001:db8::1 "-" 404\n'
