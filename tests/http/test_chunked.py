"""Chunked content: the same in any pieces, and bounded in what it may cost."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.config.model import LimitsConfig
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.http.http1.chunked import ChunkedDecoder
from twisted_wasmproxy.http.http1.encode import encode_trailers
from twisted_wasmproxy.http.http1.syntax import MessageError

LIMITS = LimitsConfig()

# CR, LF and what looks like the end of a message, more often than chance would have it.
contents = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"0\r\n\r\n", b"abc", b"\x00"]), min_size=1, max_size=8
).map(b"".join)


def pieces_of(data, offsets):
    edges = sorted({0, len(data), *(offset % (len(data) + 1) for offset in offsets)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def decode(pieces, limits=LIMITS):
    """Return content, trailers, and what was left over; None for all three if there was no end."""
    decoder = ChunkedDecoder(limits)
    content = b""
    for number, piece in enumerate(pieces):
        more, taken = decoder.feed(piece)
        content += more
        if decoder.done:
            return content, decoder.trailers, piece[taken:] + b"".join(pieces[number + 1 :])
        assert taken == len(piece)
    return None, None, None


@given(
    chunks=st.lists(contents, max_size=5),
    extension=st.sampled_from([b"", b";a", b';a="b c"', b";a=b;c"]),
    trailers=st.lists(st.tuples(st.sampled_from([b"X-A", b"x-b"]), st.sampled_from([b"", b"v", b"v w"])), max_size=3),
    rest=st.sampled_from([b"", b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"0\r\n\r\n"]),
    offsets=st.lists(st.integers(0, 1000)),
)
def test_chunked_content_is_the_same_in_any_pieces(chunks, extension, trailers, rest, offsets):
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    data += b"0" + extension + b"\r\n" + encode_trailers(Headers(trailers))[3:]
    expected = (b"".join(chunks), Headers(trailers) if trailers else None, rest)
    assert decode(pieces_of(data + rest, offsets)) == expected
    assert decode([bytes([octet]) for octet in data + rest]) == expected
    assert decode([data + rest]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;\x01\r\nabc\r\n0\r\n\r\n",
        b"0\n\n",
        b"0\r\n\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\nA: \x00\r\n\r\n",
        b"0\r\nContent-Length: 3\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_bad_chunks_are_refused(data):
    with pytest.raises(MessageError):
        decode([data])
    with pytest.raises(MessageError):
        decode([bytes([octet]) for octet in data])


def test_an_unfinished_body_has_no_end():
    whole = b"3\r\nabc\r\n0\r\nA: b\r\n\r\n"
    for end in range(len(whole)):
        assert decode([whole[:end]] if end else []) == (None, None, None)


def test_small_pieces_of_content_come_as_one():
    decoder = ChunkedDecoder(LIMITS)
    assert decoder.feed(b"1\r\na\r\n" * 1000)[0] == b"a" * 1000


def test_fields_of_framing_and_routing_are_dropped_from_trailers():
    trailers = decode([b"0\r\nHost: a\r\nConnection: b\r\nX-A: c \r\nUpgrade: d\r\nTrailer: e\r\n\r\n"])[1]
    assert list(trailers) == [(b"X-A", b"c")]


@pytest.mark.parametrize(
    "flood",
    [
        b"3;" + b"a" * 1000,
        b"0\r\nA: " + b"a" * 1000,
        b"0\r\n" + b"A: b\r\n" * 1000,
        b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\na\r\n" * 100,
    ],
    ids=["one extension", "one trailer", "trailers", "extensions"],
)
def test_framing_out_of_proportion_is_refused(flood):
    again = flood.removeprefix(b"0\r\n")
    with pytest.raises(MessageError):
        decode([flood, *[again] * (10 * LIMITS.header_bytes // len(again))])


def test_zeros_before_a_size_have_an_end():
    assert decode([b"%b3\r\nabc\r\n0\r\n\r\n" % (b"0" * 31)])[0] == b"abc"
    with pytest.raises(MessageError):
        decode([b"%b3\r\nabc\r\n0\r\n\r\n" % (b"0" * 32)])


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 257, 4095, 70_000])
def test_chunks_of_every_size_are_stepped_over(size):
    chunk = b"%X;x\r\n%b\r\n" % (size, (b"\r\n0\r\n\r\n" * size)[:size])
    data = chunk * 3 + b"00\r\n\r\nrest"
    for step in (len(data), 7 if size < 1000 else 4099):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert decode(pieces) == (chunk[chunk.index(b"\n") + 1 : -2] * 3, None, b"rest")


def cpu(function):
    """Return the least CPU time of three runs."""
    times = []
    for _ in range(3):
        begin = time.thread_time()
        function()
        times.append(time.thread_time() - begin)
    return min(times)


@pytest.mark.parametrize("content", [b"\r\n", b"\r\n0\r\n\r\n", b"0\r\n\r\n"], ids=repr)
def test_content_full_of_line_ends_costs_what_other_content_does(content):
    def body(filling):
        return [b"10000\r\n%b\r\n" % (filling * 65536)[:65536]] * 16 + [b"0\r\n\r\n"]

    assert cpu(lambda: decode(body(content))) < 10 * cpu(lambda: decode(body(b"a")))


def test_too_many_trailers_are_refused():
    with pytest.raises(MessageError) as caught:
        decode([b"0\r\n" + b"A: b\r\n" * (LIMITS.header_count + 1) + b"\r\n"])
    assert caught.value.status == 431


def test_many_small_chunks_are_not_out_of_proportion():
    assert len(decode([b"1\r\na\r\n" * 50_000, b"0\r\n\r\n"])[0]) == 50_000
