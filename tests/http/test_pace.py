"""How long a sender of content may be silent, and how fast it must be."""

from twisted_wasmproxy.http.http1.pace import Pace


def test_silence_is_limited_from_the_last_content_on():
    pace = Pace(100.0)
    assert pace.due(100.0, 60.0, 0) == 160.0
    pace.received += 1
    assert pace.due(130.0, 60.0, 0) == 190.0


def test_content_below_the_rate_does_not_put_the_end_off():
    pace = Pace(100.0)
    for second in range(60):
        pace.received += 1
        assert pace.due(100.0 + second, 60.0, 100) == min(100.0 + second, 100.0 + pace.received / 100) + 60.0


def test_content_above_the_rate_is_only_limited_by_silence():
    pace = Pace(100.0)
    for second in range(1000):
        pace.received += 101
        assert pace.due(100.0 + second, 60.0, 100) == 160.0 + second


def test_time_in_which_the_connection_is_not_read_does_not_count():
    pace = Pace(100.0)
    pace.received = 500
    pace.pause(105.0)
    pace.pause(200.0)  # still paused
    assert pace.due(305.0, 60.0, 100) == 365.0
    assert pace.due(365.0, 60.0, 100) == 365.0
    pace.pause(365.0)
    assert pace.due(1365.0, 60.0, 100) == 1365.0
