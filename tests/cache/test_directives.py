"""Cache directives: what counts, and what malformed ones are taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_wasmproxy.cache.directives import MAX_DELTA, cache_control, delta_seconds, response_directives, targeted
from twisted_wasmproxy.http.headers import Headers


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age=3600", 3600),
        (b"MaX-aGe=3600", 3600),
        (b" \tmax-age=3600 ,", 3600),
        (b"foobar, max-age=3600", 3600),
        (b"max-age=003600", 3600),
        (b'max-age="3600"', 3600),
        (b'max-age="36\\00"', 3600),
        (b"max-age=0", 0),
        (b"max-age=%d" % (2**31 - 1), 2**31 - 1),
        (b"max-age=%d" % 2**31, MAX_DELTA),
        (b"max-age=99999999999", MAX_DELTA),
        (b"max-age=" + b"9" * 10000, MAX_DELTA),
        (b"max-age=" + b"0" * 10000 + b"7", 7),
        # The first of several counts.
        (b"max-age=1, max-age=1800", 1),
        (b"max-age=x, max-age=1800", 0),
        # What is in a quoted-string is none.
        (b'extension="max-age=3600", max-age=1', 1),
        (b'max-age=1, extension="max-age=3600"', 1),
        (b'a="\\", max-age=3600, \\"", max-age=1', 1),
        (b'extension="max-age=3600"', None),
        (b"x-max-age=3600, max-agent=5", None),
        (b"", None),
        (b",,  ,", None),
        (b"=3600", None),
    ],
)
def test_seconds_of_a_directive(value, seconds):
    assert cache_control([value]).seconds(b"max-age") == seconds


@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b"-3600", b"+5", b"3600.0", b"3600.5", b"3600a", b"a3600", b"'3600'", b" 3600", b"1_000", b"0x10"),
        *(
            b"\xb2",
            b"36 00",
            b'"3600',
            b'"3600"x',
            b'"100, max-age=200"',
            b'"',
            b'""',
            b"3600;x",
            b'36"00"',
            b"\x003600",
        ),
    ],
)
def test_seconds_that_are_none_are_zero(argument):
    assert cache_control([b"max-age=" + argument]).seconds(b"max-age") == 0


def test_a_directive_without_its_argument_and_one_with_space_before_it_are_zero():
    assert cache_control([b"max-age"]).seconds(b"max-age") == 0
    assert cache_control([b"max-age =3600"]).seconds(b"max-age") == 0


def test_lines_are_one_list():
    directives = cache_control([b"max-age=5", b"No-Store"])
    assert directives.seconds(b"max-age") == 5
    assert b"no-store" in directives


@pytest.mark.parametrize(
    "value", [b'a="b, no-store', b'a=b", no-store, c="d"', b'a="b\\", no-store', b'"x", max-age=5', b'max-age= "5, x"']
)
def test_quotes_out_of_place_are_taken_for_no_store(value):
    assert b"no-store" in cache_control([value])


@pytest.mark.parametrize(
    ("values", "unqualified", "fields"),
    [
        ([b"private"], True, ()),
        ([b'private="a, B"'], False, (b"a", b"b")),
        ([b"private=a"], False, (b"a",)),
        ([b'private="a", private="b"'], False, (b"a", b"b")),
        ([b'private="a"', b"private"], True, ()),
        ([b'private, private="a"'], True, ()),
        *(([b"private=" + bad], True, ()) for bad in (b"", b'""', b'","', b'"a b"', b'"a,,b"', b'"a', b'"a"b', b"a;b")),
        ([b'private ="a"'], True, ()),
        # What the cache goes by itself cannot be left out.
        ([b'private="cache-control, a"'], True, ()),
        ([b'private="Vary"'], True, ()),
        ([b"public"], False, ()),
    ],
)
def test_private_and_no_cache_of_fields(values, unqualified, fields):
    directives = cache_control(values)
    assert directives.unqualified(b"private") is unqualified
    assert directives.fields(b"private") == fields
    directives = cache_control([value.replace(b"private", b"no-cache") for value in values])
    assert directives.unqualified(b"no-cache") is unqualified
    assert directives.fields(b"no-cache") == fields


def test_what_allows_something_has_no_argument():
    assert cache_control([b"PUBLIC"]).bare(b"public")
    assert not cache_control([b"public=1"]).bare(b"public")
    assert not cache_control([b"max-age=1"]).bare(b"public")


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (b"max-age=60", {b"max-age": b"60"}),
        (b"max-age=60;x=y, no-store;z", {b"max-age": b"60", b"no-store": None}),
        (b"max-age=60, max-age=5", {b"max-age": b"5"}),
        (b'no-cache="a, b", private', {b"no-cache": b"a, b", b"private": None}),
        (b"foo=(1 2), bar=:aGk=:, max-age=1", None),
        (b"max-age=-5", {b"max-age": b"-5"}),
        (b"foo", {b"foo": None}),
    ],
)
def test_targeted_fields(value, arguments):
    found = targeted([value])
    assert found is not None
    if arguments is not None:
        assert found.arguments == arguments


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"",
            b"  ",
            b"max-age=10000, &&&&&",
            b'max-age="10000"',
            b"max-age=1.5",
            b"max-age",
            b"max-age=?0",
            b"MaX-aGe=1",
        ),
        *(
            b"max-age= 1",
            b"max-age =1",
            b"max-age=",
            b"no-store=1",
            b"no-store=?0",
            b'public="x"',
            b"no-cache=5",
            b"\xff",
        ),
        *(b"max-age=(1 2)", b"max-age=9999999999999999", b"max-age=1,", b'private="\x00"', b"s-maxage=abc"),
    ],
)
def test_targeted_fields_that_do_not_count(value):
    assert targeted([value]) is None


def test_the_first_targeted_field_that_is_valid_counts():
    names = (b"own-cache-control", b"cdn-cache-control")
    headers = Headers([(b"CDN-Cache-Control", b"max-age=2"), (b"Cache-Control", b"max-age=3")])
    assert response_directives(headers, names)[0].seconds(b"max-age") == 2
    assert response_directives(headers, ())[0].seconds(b"max-age") == 3
    headers.add(b"Own-Cache-Control", b"max-age=1")
    directives, is_targeted = response_directives(headers, names)
    assert directives.seconds(b"max-age") == 1
    assert is_targeted
    headers.set(b"Own-Cache-Control", b"max-age=one")
    assert response_directives(headers, names)[0].seconds(b"max-age") == 2
    headers.set(b"CDN-Cache-Control", b"")
    directives, is_targeted = response_directives(headers, names)
    assert directives.seconds(b"max-age") == 3
    assert not is_targeted


@pytest.mark.parametrize("value", [None, b"", b"-1", b"1.0", b" 1", b"\xc2\xb2"])
def test_what_is_no_delta_seconds(value):
    assert delta_seconds(value) is None


NAMES = st.sampled_from([b"max-age", b"no-cache", b"private", b"no-store", b"x"])


@given(st.lists(st.binary(max_size=30), max_size=3))
def test_no_value_raises(values):
    for found in (cache_control(values), targeted(values)):
        if found is not None:
            for name in (b"max-age", b"no-cache", b"private"):
                assert 0 <= (found.seconds(name) or 0) <= MAX_DELTA
                found.fields(name)
                found.unqualified(name)


@given(st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=10)), max_size=6, unique_by=lambda pair: pair[0]))
def test_quoted_arguments_are_read_as_they_were_meant(pairs):
    members = []
    for name, argument in pairs:
        if argument is None:
            members.append(name)
        else:
            members.append(name + b'="' + argument.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"')
    assert cache_control([b", ".join(members)]).arguments == dict(pairs)
