"""What every `ICacheStore` promises, as tests.

A test module for a store imports all of this (`from tests.cache.stores.contract import *`) and has a fixture `store`:
a `Driver` of a started, empty store of its own, with a capacity of 16 MiB and a `largest` of 4 MiB.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from tests.cache.stores.driver import Driver, until
from tests.cache.support import head
from twisted_wasmproxy.cache.entry import Selection, StoredHead, StoreError, StoreFull
from twisted_wasmproxy.http.headers import Headers
from twisted_wasmproxy.interfaces import ICacheStore, IStoredResponse, IStoreWriter

KEY = b"http://h/"
KIB = 1024
MIB = 1024 * 1024


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes of which no two stretches are alike."""
    return random.Random(seed).randbytes(size)


def variant(language: bytes, **changes: Any) -> StoredHead:
    return head(vary=((b"accept-language", language),), **changes)


# What is stored is found as it was given


def test_it_provides_the_interfaces(store: Driver) -> None:
    verifyObject(ICacheStore, store.store)
    writer = store.create(head())
    verifyObject(IStoreWriter, writer)
    verifyObject(IStoredResponse, store.commit(writer, head(length=0)))


def test_nothing_is_found_where_nothing_was_stored(store: Driver) -> None:
    store.save(head())
    assert list(store.lookup(b"http://h/other")) == []
    assert list(store.lookup(KEY[:-1])) == []
    assert list(store.lookup(KEY + b"\0")) == []


def test_a_response_is_found_as_it_was_stored(store: Driver) -> None:
    saved = store.save(head(), b"the content")
    (stored,) = store.lookup(KEY)
    assert stored.head == saved.head == head(length=11)
    assert stored.parts == ((0, 11),)
    assert stored.size == 11
    assert stored.memo is None
    assert store.content(stored) == store.content(saved) == {0: b"the content"}


def test_a_head_keeps_all_it_has(store: Driver) -> None:
    given = StoredHead(
        key=b"http://h/p?q\0up\xffstream",
        url=b"http://h/p?q",
        status=599,
        reason=b"Odd \xe9",
        headers=Headers([(b"X-A", b"1"), (b"x-a", b""), (b"ETag", b'"\x80"'), (b"X-A", b"1")]),
        request_time=1_700_000_000.123456,
        response_time=1_700_000_001.654321,
        version=b"1.0",
        vary=((b"accept", b"text/html, */*"), (b"cookie", None), (b"x", b"")),
        authorized=True,
        length=3,
        surrogate_keys=(b"one", b"t\xc3\xb6", b"one"),
        trailers=Headers([(b"Digest", b"x")]),
        purged=1_700_000_002.5,
    )
    store.save(given, b"abc")
    (stored,) = store.lookup(given.key)
    assert stored.head == given
    assert list(stored.head.headers) == list(given.headers)


def test_no_trailers_and_empty_trailers_are_told_apart(store: Driver) -> None:
    store.save(head(b"http://h/none"))
    store.save(head(b"http://h/empty", trailers=Headers()))
    assert store.lookup(b"http://h/none")[0].head.trailers is None
    assert store.lookup(b"http://h/empty")[0].head.trailers == Headers()


def test_keys_are_told_apart_however_long_they_are(store: Driver) -> None:
    long = b"http://h/" + b"k" * 5000
    keys = [long, long + b"\0", long + b"k", long[:400], long[:511], long[:512], b"http://h/\0\xff\0"]
    for key in keys:
        store.save(head(key), key)
    for key in keys:
        assert store.found(key) == [(head(key, length=len(key)), {0: key})]


def test_a_complete_response_without_content_is_complete(store: Driver) -> None:
    store.save(head(), b"")
    (stored,) = store.lookup(KEY)
    assert stored.parts == ((0, 0),)
    assert stored.size == 0
    assert stored.body in (b"", None)


def test_a_head_whose_content_is_not_there_is_kept(store: Driver) -> None:
    store.commit(store.create(head(length=100)), head(length=100))
    (stored,) = store.lookup(KEY)
    assert stored.parts == ()
    assert stored.size == 0
    assert stored.body is None


@pytest.mark.parametrize("size", [1, 4 * KIB, 64 * KIB - 1, 64 * KIB, 1 * MIB, 1 * MIB + 1, 3 * MIB + 7])
def test_content_of_any_size_is_read_at_any_position(store: Driver, size: int) -> None:
    content = noise(size)
    store.save(head(), content)
    (stored,) = store.lookup(KEY)
    store.hold(stored)
    assert store.read_all(stored, 0, size) == content
    for start in {0, 1, size // 3, size // 2, size - 1} & set(range(size)):
        data = store.read(stored, start, 100 * KIB)
        assert data == content[start : start + len(data)]
    assert store.read(stored, size - 1, 10) == content[-1:]
    store.release(stored)


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 16 * KIB, 300 * KIB])
def test_content_may_come_in_pieces_of_any_size(store: Driver, size: int) -> None:
    content = noise(min(size * 1000, 2 * MIB))
    writer = store.create(head())
    for start in range(0, len(content), size):
        store.write(writer, content[start : start + size])
    store.commit(writer, head(length=len(content)))
    assert store.found(KEY)[0][1] == {0: content}


def test_empty_pieces_are_no_pieces(store: Driver) -> None:
    writer = store.create(head())
    for piece in (b"", b"ab", b"", b"c", b""):
        store.write(writer, piece)
    assert store.available(writer, 0) == 3
    store.commit(writer, head(length=3))
    assert store.found(KEY)[0][1] == {0: b"abc"}


# While it is written


def test_nothing_is_found_before_the_commit(store: Driver) -> None:
    writer = store.create(head())
    store.write(writer, b"half")
    assert list(store.lookup(KEY)) == []
    assert list(store.entries()) == []
    store.commit(writer, head(length=4))
    assert len(store.lookup(KEY)) == 1


def test_nothing_is_left_of_what_is_aborted(store: Driver) -> None:
    writer = store.create(head())
    store.write(writer, noise(MIB))
    store.abort(writer)
    store.abort(writer)
    assert list(store.lookup(KEY)) == []
    assert store.stats()["entries"] == 0


def test_what_is_stored_stays_while_its_successor_is_written_and_aborted(store: Driver) -> None:
    store.save(head(), b"old")
    writer = store.create(head())
    store.write(writer, b"new")
    assert store.found(KEY)[0][1] == {0: b"old"}
    store.abort(writer)
    assert store.found(KEY)[0][1] == {0: b"old"}


def test_an_abort_after_the_commit_does_nothing(store: Driver) -> None:
    writer = store.create(head())
    store.write(writer, b"all")
    stored = store.commit(writer, head(length=3))
    store.abort(writer)
    assert store.content(stored) == {0: b"all"}
    assert store.found(KEY)[0][1] == {0: b"all"}


def test_what_is_written_is_read_at_once_by_readers_at_any_pace(store: Driver) -> None:
    content = noise(MIB + 12345)
    random_ = random.Random(1)
    writer = store.create(head())
    fast = slow = written = 0
    while written < len(content):
        size = random_.choice([1, 50, 3000, 20_000, 70_000])
        store.write(writer, content[written : written + size])
        written = min(written + size, len(content))
        assert store.available(writer, 0) == written
        assert store.available(writer, written) == 0
        while fast < written:
            assert store.available(writer, fast) == written - fast
            data = store.read(writer, fast, 100_000)
            assert data == content[fast : fast + len(data)]
            fast += len(data)
        data = store.read(writer, slow, 5000)
        assert data == content[slow : slow + len(data)]
        slow += len(data)
    assert store.read_all(writer, slow, written) == content[slow:]
    store.commit(writer, head(length=len(content)))


def test_a_body_known_to_be_too_large_is_not_begun(store: Driver) -> None:
    assert store.create(head(), store.largest + 1) is None
    writer = store.create(head(), store.largest)
    assert writer is not None
    store.abort(writer)


def test_a_body_of_the_largest_size_is_stored(store: Driver) -> None:
    content = noise(store.largest)
    store.save(head(), content)
    assert store.found(KEY)[0][1] == {0: content}


def test_a_body_that_grows_too_large_is_refused_and_what_was_written_is_still_read(store: Driver) -> None:
    content = noise(store.largest - 10)
    writer = store.create(head())
    store.write(writer, content)
    with pytest.raises(StoreFull):
        store.write(writer, b"eleven byte")
    assert store.available(writer, 0) == len(content)
    assert store.read_all(writer, 0, len(content)) == content
    store.abort(writer)
    assert list(store.lookup(KEY)) == []
    store.save(head(), b"another")
    assert store.found(KEY)[0][1] == {0: b"another"}


def test_of_two_that_write_the_same_the_last_to_commit_stays(store: Driver) -> None:
    first, second = store.create(head()), store.create(head())
    store.write(second, b"second")
    store.write(first, b"the first")
    store.commit(second, head(length=6))
    store.commit(first, head(length=9))
    assert [content for _, content in store.found(KEY)] == [{0: b"the first"}]
    assert store.stats()["entries"] == 1


# Variants


def test_variants_are_kept_side_by_side_the_latest_first(store: Driver) -> None:
    for language in (b"de", b"en", b"fr"):
        store.save(variant(language), language)
    assert [content[0] for _, content in store.found(KEY)] == [b"fr", b"en", b"de"]


def test_a_commit_takes_the_place_of_the_same_variant_only(store: Driver) -> None:
    store.save(head(), b"none")
    store.save(variant(b"de"), b"alt")
    store.save(variant(b"en"), b"en")
    store.save(variant(b"de"), b"neu")
    assert [content[0] for _, content in store.found(KEY)] == [b"neu", b"en", b"none"]
    assert store.stats()["entries"] == 3


def test_variants_of_one_key_are_bounded(store: Driver) -> None:
    for i in range(300):
        store.save(variant(b"%d" % i), b"x")
    until(lambda: len(store.lookup(KEY)) <= 100)
    assert store.lookup(KEY)[0].head.vary == variant(b"299").vary


# Replacing, removing


def test_what_is_held_stays_readable_when_it_is_replaced_or_removed(store: Driver) -> None:
    content = noise(2 * MIB)
    store.save(head(), content)
    (stored,) = store.lookup(KEY)
    store.hold(stored)
    store.hold(stored)
    assert store.read(stored, 0, 100) == content[:100]
    store.save(head(), b"new")
    assert store.read_all(stored, 0, len(content)) == content
    store.release(stored)
    assert store.read_all(stored, 0, len(content)) == content
    store.release(stored)

    (new,) = store.lookup(KEY)
    store.hold(new)
    store.remove(new)
    assert list(store.lookup(KEY)) == []
    assert store.read_all(new, 0, 3) == b"new"
    store.release(new)


def test_one_variant_is_removed_without_the_others(store: Driver) -> None:
    store.save(variant(b"de"), b"de")
    store.save(variant(b"en"), b"en")
    store.remove(store.lookup(KEY)[1])
    assert [content[0] for _, content in store.found(KEY)] == [b"en"]


def test_removing_twice_or_what_was_replaced_does_nothing(store: Driver) -> None:
    old = store.save(head(), b"old")
    store.save(head(), b"new")
    store.call(lambda: store.store.remove(old))
    assert store.purge(Selection(url=b"http://h/nothing")) == 0  # a purge waits for what was asked before
    assert [content[0] for _, content in store.found(KEY)] == [b"new"]
    (new,) = store.lookup(KEY)
    store.remove(new)
    store.remove(new)
    assert list(store.lookup(KEY)) == []


def test_an_update_gives_another_head_to_the_same_content(store: Driver) -> None:
    store.save(variant(b"en"), b"en")
    old = store.save(variant(b"de"), b"the content")
    old.memo = "of the old head"
    fresher = old.head.replaced(response_time=old.head.response_time + 60, headers=Headers([(b"ETag", b'"2"')]))
    new = store.update(old, fresher)
    assert new.head == fresher
    assert new.memo is None
    assert store.content(new) == {0: b"the content"}
    assert store.found(KEY)[0] == (fresher, {0: b"the content"})
    assert len(store.lookup(KEY)) == 2
    assert old.head == variant(b"de", length=11)


def test_an_update_keeps_the_parts_of_incomplete_content(store: Driver) -> None:
    store.save(head(length=100), b"middle", start=50)
    (stored,) = store.lookup(KEY)
    store.update(stored, stored.head.replaced(status=206))
    assert store.found(KEY) == [(head(length=100, status=206), {50: b"middle"})]


def test_an_update_changes_by_which_surrogate_keys_it_is_found(store: Driver) -> None:
    store.save(head(surrogate_keys=(b"old", b"both")))
    (stored,) = store.lookup(KEY)
    store.update(stored, stored.head.replaced(surrogate_keys=(b"both", b"new")))
    assert store.purge(Selection(surrogate_key=b"old"), soft=True) == 0
    assert store.purge(Selection(surrogate_key=b"both"), soft=True) == 1
    assert store.purge(Selection(surrogate_key=b"new")) == 1
    assert list(store.lookup(KEY)) == []


@pytest.mark.parametrize("how", ["removed", "purged", "replaced"])
def test_an_update_of_what_is_gone_brings_nothing_back(store: Driver, how: str) -> None:
    store.save(head(), b"old")
    (old,) = store.lookup(KEY)
    store.hold(old)
    if how == "removed":
        store.remove(old)
    elif how == "purged":
        store.purge(Selection())
    else:
        store.save(head(), b"newer")
    fresher = old.head.replaced(status=203)
    answer = store.update(old, fresher)
    assert answer.head == fresher
    assert store.content(answer) == {0: b"old"}
    store.release(old)
    assert [content[0] for _, content in store.found(KEY)] == ([b"newer"] if how == "replaced" else [])


# Incomplete content


def test_incomplete_content_is_read_where_it_is(store: Driver) -> None:
    writer = store.create(head(length=1000), 5, None, 100)
    store.write(writer, b"abcde")
    assert store.available(writer, 0) == 0
    assert store.available(writer, 99) == 0
    assert store.available(writer, 102) == 3
    assert store.available(writer, 105) == 0
    assert store.read(writer, 102, 10) == b"cde"
    store.commit(writer, head(length=1000))
    (stored,) = store.lookup(KEY)
    assert stored.parts == ((100, 105),)
    assert stored.body is None
    assert store.content(stored) == {100: b"abcde"}
    assert store.read(stored, 104, 10) == b"e"


def test_content_of_unknown_length_is_incomplete(store: Driver) -> None:
    writer = store.create(head())
    store.write(writer, b"abc")
    store.commit(writer, head())
    (stored,) = store.lookup(KEY)
    assert stored.parts == ((0, 3),)
    assert stored.body is None


@pytest.mark.parametrize(
    ("start", "content", "expected"),
    [
        (0, b"NEW", {0: b"NEW", 10: b"abcde", 20: b"fghij"}),
        (7, b"NEW", {7: b"NEWabcde", 20: b"fghij"}),
        (8, b"NEW", {8: b"NEWbcde", 20: b"fghij"}),
        (10, b"NEW", {10: b"NEWde", 20: b"fghij"}),
        (11, b"NEW", {10: b"aNEWe", 20: b"fghij"}),
        (12, b"NEW", {10: b"abNEW", 20: b"fghij"}),
        (15, b"NEW", {10: b"abcdeNEW", 20: b"fghij"}),
        (16, b"NEW", {10: b"abcde", 16: b"NEW", 20: b"fghij"}),
        (15, b"FIVER", {10: b"abcdeFIVERfghij"}),
        (13, b"NINEBYTES", {10: b"abcNINEBYTESghij"[:15][:3] + b"NINEBYTES" + b"hij"}),
        (9, b"SEVENTEEN BYTES..", {9: b"SEVENTEEN BYTES.."}),
        (26, b"NEW", {10: b"abcde", 20: b"fghij", 26: b"NEW"}),
        (12, b"", {10: b"abcde", 20: b"fghij"}),
    ],
)
def test_parts_are_united_and_what_is_written_counts(
    store: Driver, start: int, content: bytes, expected: dict[int, bytes]
) -> None:
    given = head(length=30)
    store.save(given, b"abcde", start=10)
    (base,) = store.lookup(KEY)
    store.save(given, b"fghij", base=base, start=20)
    (base,) = store.lookup(KEY)
    assert store.content(base) == {10: b"abcde", 20: b"fghij"}

    writer = store.create(given, len(content), base, start)
    store.write(writer, content)
    for at, bytes_ in expected.items():
        for position in (at, at + 1, at + len(bytes_) - 1):
            assert store.available(writer, position) == at + len(bytes_) - position
        assert store.read_all(writer, at, at + len(bytes_)) == bytes_
    assert store.available(writer, 29) == 0
    store.commit(writer, given)
    assert store.found(KEY) == [(given, expected)]


def test_parts_that_make_up_the_whole_are_complete(store: Driver) -> None:
    content = noise(3 * MIB)
    given = head(length=len(content))
    base = None
    for start in (MIB, 0, 2 * MIB):
        store.save(given, content[start : start + MIB], base=base, start=start)
        (base,) = store.lookup(KEY)
    assert base.parts == ((0, len(content)),)
    assert store.content(base) == {0: content}


def test_a_small_whole_made_of_parts_is_at_hand_as_any_other(store: Driver) -> None:
    store.save(head(length=6), b"abc")
    (base,) = store.lookup(KEY)
    store.save(head(length=6), b"def", base=base, start=3)
    store.save(head(b"http://h/other"), b"abcdef")
    assert store.lookup(KEY)[0].body == store.lookup(b"http://h/other")[0].body


def test_what_was_had_before_is_read_while_the_rest_is_written(store: Driver) -> None:
    given = head(length=9)
    store.save(given, b"abc")
    (base,) = store.lookup(KEY)
    writer = store.create(given, None, base, 3)
    assert store.available(writer, 0) == 3
    assert store.read_all(writer, 0, 3) == b"abc"
    store.write(writer, b"def")
    store.purge(Selection())
    assert store.available(writer, 0) == 6
    assert store.read_all(writer, 0, 6) == b"abcdef"
    store.abort(writer)


# Purges


def several(store: Driver) -> None:
    store.save(head(b"http://a.example/x/1", surrogate_keys=(b"red", b"round")))
    store.save(head(b"http://a.example/x/1", key=b"http://a.example/x/1\0other", surrogate_keys=(b"red",)))
    store.save(variant(b"de", url=b"http://a.example/x/1"))
    store.save(head(b"http://a.example/x/12", surrogate_keys=(b"round",)))
    store.save(head(b"http://a.example:8080/x/1"))
    store.save(head(b"https://b.example/x/1", surrogate_keys=(b"red",)))


def urls(store: Driver) -> list[bytes]:
    return sorted(stored.head.url for stored in store.entries())


PURGES = [
    (Selection(url=b"http://a.example/x/1"), 3),
    (Selection(url=b"http://a.example/x/"), 0),
    (Selection(prefix=b"http://a.example/x/1"), 4),
    (Selection(prefix=b"http://a.example/"), 4),
    (Selection(prefix=b"https:"), 1),
    (Selection(host=b"a.example"), 5),
    (Selection(host=b"a.example:8080"), 1),
    (Selection(host=b"b.example"), 1),
    (Selection(host=b"example"), 0),
    (Selection(surrogate_key=b"red"), 3),
    (Selection(surrogate_key=b"re"), 0),
    (Selection(surrogate_key=b"round"), 2),
    (Selection(surrogate_key=b"red", host=b"a.example"), 2),
    (Selection(surrogate_key=b"red", url=b"http://a.example/x/12"), 0),
    (Selection(url=b"http://a.example/x/1", prefix=b"http://b"), 0),
    (Selection(), 6),
]


@pytest.mark.parametrize(("selection", "count"), PURGES)
def test_a_purge_removes_what_is_selected_and_nothing_else(store: Driver, selection: Selection, count: int) -> None:
    several(store)
    selected = [(stored.head.key, stored.head.vary) for stored in store.entries(selection)]
    assert len(selected) == count
    assert store.purge(selection) == count
    assert len(store.entries()) == 6 - count
    assert list(store.entries(selection)) == []
    for key, vary in selected:
        assert vary not in [stored.head.vary for stored in store.lookup(key)]
    assert store.purge(selection) == 0
    assert store.stats()["entries"] == 6 - count


@pytest.mark.parametrize(("selection", "count"), PURGES)
def test_a_soft_purge_marks_what_is_selected_and_nothing_else(store: Driver, selection: Selection, count: int) -> None:
    several(store)
    assert store.purge(selection, soft=True) == count
    marked = [stored for stored in store.entries() if stored.head.purged]
    assert len(marked) == count
    assert len(store.entries()) == 6
    for stored in marked:
        (found,) = [other for other in store.lookup(stored.head.key) if other.head.vary == stored.head.vary]
        assert found.head.purged == stored.head.purged > 1_700_000_000
        assert store.content(found) == {0: b"content"}


def test_a_soft_purge_leaves_what_was_found_before_as_it_was(store: Driver) -> None:
    store.save(head())
    (before,) = store.lookup(KEY)
    before.memo = "fresh"
    store.purge(Selection(), soft=True)
    (after,) = store.lookup(KEY)
    assert not before.head.purged
    assert after.memo is None


@pytest.mark.parametrize("soft", [False, True])
def test_what_is_written_during_a_purge_answers_once_and_is_not_stored(store: Driver, soft: bool) -> None:
    doomed = store.create(head(surrogate_keys=(b"red",)))
    other = store.create(head(b"http://other/"))
    store.write(doomed, b"before, ")
    assert store.purge(Selection(surrogate_key=b"red"), soft) == 0
    later = store.create(head(b"http://h/later", surrogate_keys=(b"red",)))
    store.write(doomed, b"and after")
    assert store.read_all(doomed, 0, 17) == b"before, and after"

    stored = store.commit(doomed, head(length=17, surrogate_keys=(b"red",)))
    assert stored.head.length == 17
    assert store.content(stored) == {0: b"before, and after"}
    assert list(store.lookup(KEY)) == []
    assert store.stats()["entries"] == 0

    store.commit(other, head(b"http://other/", length=0))
    store.commit(later, head(b"http://h/later", length=0, surrogate_keys=(b"red",)))
    assert urls(store) == [b"http://h/later", b"http://other/"]


def test_what_a_purge_has_doomed_does_not_replace_what_came_after(store: Driver) -> None:
    doomed = store.create(head())
    store.write(doomed, b"of before")
    store.purge(Selection(url=KEY))
    store.save(head(), b"of after")
    store.commit(doomed, head(length=9))
    assert [content[0] for _, content in store.found(KEY)] == [b"of after"]


def test_a_validation_that_began_before_a_purge_brings_nothing_back(store: Driver) -> None:
    store.save(head())
    (stored,) = store.lookup(KEY)
    assert store.purge(Selection(), soft=True) == 1
    store.update(stored, stored.head.replaced(status=203))
    assert [found.head.purged > 0 for found in store.lookup(KEY)] == [True]


def test_entries_are_bounded(store: Driver) -> None:
    several(store)
    assert len(store.entries(Selection(), 4)) == 4
    assert len(store.entries(Selection(surrogate_key=b"red"), 2)) == 2
    assert len(store.entries(Selection(), 0)) == 0


# Room


def test_it_says_how_full_it_is(store: Driver) -> None:
    before = store.stats()
    assert before["entries"] == 0
    assert before["evictions"] == 0
    store.save(head(), noise(MIB))
    after = store.stats()
    assert after["entries"] == 1
    assert after["bytes"] >= before["bytes"] + MIB
    assert after["capacity"] == before["capacity"]


def test_it_keeps_within_its_capacity_and_what_it_keeps_is_whole(store: Driver) -> None:
    capacity = store.stats()["capacity"]
    size = 128 * KIB
    count = 2 * capacity // size
    for i in range(count):
        store.save(head(b"http://h/%d" % i), noise(size, i))
    until(lambda: store.stats()["bytes"] <= capacity)
    stats = store.stats()
    assert stats["bytes"] >= capacity // 2
    assert stats["evictions"] >= count // 2 - 16
    kept = [i for i in range(count) if store.lookup(b"http://h/%d" % i)]
    assert len(kept) == stats["entries"]
    for i in kept:
        assert store.found(b"http://h/%d" % i)[0][1] == {0: noise(size, i)}


def test_what_is_used_all_the_time_is_kept(store: Driver) -> None:
    size = 128 * KIB
    store.save(head(), b"hot")
    for i in range(2 * store.stats()["capacity"] // size):
        for stored in store.lookup(KEY):
            store.used(stored)
        store.save(head(b"http://h/%d" % i), bytes(size))
    assert len(store.lookup(KEY)) == 1


# The end


def test_a_stop_aborts_what_is_written(store: Driver) -> None:
    writer = store.create(head())
    store.write(writer, b"half")
    store.stop()
    with pytest.raises(StoreError):
        store.commit(writer, head(length=4))
    store.abort(writer)
