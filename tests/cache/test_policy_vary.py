"""Selecting fields: RFC 9111 section 4.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cache.support import head
from twisted_wasmproxy.cache.policy import selecting, selects, vary_names
from twisted_wasmproxy.http.headers import Headers


def alike(name, one, other):
    one = Headers([(name, value) for value in one])
    other = Headers([(name, value) for value in other])
    stored = head(vary=selecting((name.lower(),), one))
    assert selects(stored, one)
    return selects(stored, other)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([], ()),
        ([b""], ()),
        ([b"Foo"], (b"foo",)),
        ([b"Foo, bar,, BAZ , foo"], (b"bar", b"baz", b"foo")),
        ([b"Foo", b"Bar"], (b"bar", b"foo")),
        *[([value], None) for value in (b"*", b"*, *", b", *", b"*, Foo", b"Foo, *", b"Foo Bar", b"a;b", b"\xff")],
        ([b"", b"*"], None),
        ([b"*", b"*"], None),
    ],
)
def test_names_in_vary(values, names):
    assert vary_names(Headers([(b"Vary", value) for value in values])) == names


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (b"Foo", [b"1, 2"], [b"1", b"2"]),
        (b"Foo", [b"1,2"], [b" 1, 2 "]),
        (b"Foo", [b"1 ,\t2"], [b"1", b"2"]),
        (b"Foo", [], []),
        (b"Accept-Language", [b"en, de"], [b"de, en"]),
        (b"Accept-Language", [b"en, de"], [b"eN, De"]),
        (b"Accept-Language", [b"en, de"], [b" en ,   de"]),
        (b"Accept-Language", [b"en", b"de"], [b"de;q=1.0, en;q=1"]),
        (b"Accept-Language", [b"en;q=0.5, de"], [b"de, en; Q=0.500"]),
        (b"Accept-Language", [b"en, en"], [b"en,,"]),
        (b"Accept-Encoding", [b"gzip, br;q=0.0"], [b"br;q=0,x-gzip"]),
        (b"Accept-Charset", [b"UTF-8, *;q=0.1"], [b"*;q=0.10, utf-8"]),
        (b"Accept", [b"text/html;level=1, */*;q=0.1"], [b"*/*;q=0.1,Text/HTML;LEVEL=1"]),
    ],
)
def test_values_that_mean_the_same_select_the_same(name, one, other):
    assert alike(name, one, other)
    assert alike(name, other, one)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (b"Foo", [b"1"], [b"2"]),
        (b"Foo", [b"1"], []),
        (b"Foo", [b""], []),
        (b"Foo", [b"1, 2"], [b"2, 1"]),
        (b"Foo", [b"a"], [b"A"]),
        (b"Foo", [b"a b"], [b"a  b"]),
        (b"Foo", [b'"a , b"'], [b'"a, b"']),
        (b"Cookie", [b"a=1; b=2"], [b"b=2; a=1"]),
        (b"Accept-Language", [b"en, de"], [b"en, fr"]),
        (b"Accept-Language", [b"en, de"], [b"en, de;q=0.9"]),
        (b"Accept-Language", [b"en, de"], [b"fr;q=0.5, de;q=1.0"]),
        (b"Accept-Language", [b"en;q=0.5, en"], [b"en, en;q=0.5"]),
        (b"Accept-Encoding", [b"gzip"], []),
        (b"Accept-Encoding", [b""], []),
        (b"Accept-Encoding", [b"gzip;q=0"], [b"gzip"]),
        (b"Accept-Encoding", [b"gzip;q=x"], [b"gzip"]),
        (b"Accept-Encoding", [b"gzip;q=1.001"], [b"gzip"]),
        (b"Accept-Encoding", [b"gzip;q=0.1234"], [b"gzip;q=0.123"]),
        (b"Accept", [b"text/html;level=a"], [b"text/html;level=A"]),
        (b"Accept", [b'text/html;a="b, c"'], [b'text/html;a="b,c"']),
    ],
)
def test_values_that_may_mean_something_else_do_not(name, one, other):
    assert not alike(name, one, other)
    assert not alike(name, other, one)


def test_all_selecting_fields_count_and_no_others():
    stored = head(vary=selecting((b"bar", b"foo"), Headers([(b"Foo", b"1"), (b"Other", b"x")])))
    assert stored.vary == ((b"bar", None), (b"foo", b"1"))
    assert selects(stored, Headers([(b"Other", b"y"), (b"FOO", b"1")]))
    assert not selects(stored, Headers([(b"Foo", b"1"), (b"Bar", b"1")]))
    assert not selects(stored, Headers())
    assert selects(head(), Headers([(b"Foo", b"1")]))


RANGES = st.tuples(
    st.sampled_from([b"en", b"EN-gb", b"de", b"*", b"fr"]), st.sampled_from([b"", b";q=0", b"; q=0.50", b";q=1.000"])
)


@given(st.lists(RANGES, unique_by=lambda pair: pair[0]), st.randoms())
def test_the_order_of_what_is_preferred_says_nothing(pairs, random):
    shuffled = pairs.copy()
    random.shuffle(shuffled)
    one = b",".join(range_ + weight for range_, weight in pairs)
    other = b" , ".join(range_.upper() + weight.replace(b"; q=0.50", b";Q=0.5") for range_, weight in shuffled)
    assert alike(b"Accept-Language", [one], [other])


@given(
    st.sampled_from([b"Accept", b"Accept-Encoding", b"Accept-Language", b"X"]),
    st.lists(st.binary(max_size=20), max_size=3),
)
def test_no_value_raises_and_each_is_like_itself(name, values):
    assert alike(name, values, values)
