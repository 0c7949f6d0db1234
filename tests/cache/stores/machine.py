"""`StoreMachine`: a store and a dict under the same random operations, to be the same at any time."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from tests.cache.stores.driver import Driver
from tests.cache.support import head
from twisted_wasmproxy.cache.entry import Selection, StoredHead

URLS = (b"http://a/1", b"http://a/12", b"http://b/1")
TAGS = (b"red", b"round")
VARY = ((), ((b"accept", b"x"),), ((b"accept", None),))
LENGTH = 24
"""Of every complete representation; content is told apart by what it is made of."""

heads = st.builds(
    lambda url, extra, vary, tags: head(url, key=url + extra, vary=vary, surrogate_keys=tuple(tags), length=LENGTH),
    st.sampled_from(URLS),
    st.sampled_from([b"", b"\0other"]),
    st.sampled_from(VARY),
    st.lists(st.sampled_from(TAGS), max_size=2),
)
selections = st.builds(
    Selection,
    url=st.none() | st.sampled_from(URLS),
    prefix=st.none() | st.sampled_from([b"http://a", b"http://a/1", b"https"]),
    host=st.none() | st.sampled_from([b"a", b"b", b"a:80", b"c"]),
    surrogate_key=st.none() | st.sampled_from(TAGS),
)


def selected(selection: Selection, head: StoredHead) -> bool:
    """What `Selection` says, for the URLs here."""
    host = None if selection.host is None else b"http://" + selection.host.removesuffix(b":80") + b"/"
    return (
        selection.url in (None, head.url)
        and head.url.startswith(selection.prefix or b"")
        and head.url.startswith(host or b"")
        and (selection.surrogate_key is None or selection.surrogate_key in head.surrogate_keys)
    )


class Content:
    """The model of content: a byte or nothing at each position."""

    def __init__(self, base: Content | None = None, start: int = 0) -> None:
        self.bytes: list[int | None] = [None] * LENGTH if base is None else list(base.bytes)
        self.at = start

    def write(self, data: bytes) -> None:
        self.bytes[self.at : self.at + len(data)] = data
        self.at += len(data)

    def parts(self) -> dict[int, bytes]:
        parts: dict[int, bytearray] = {}
        last: bytearray | None = None
        for position, byte in enumerate(self.bytes):
            if byte is None:
                last = None
            elif last is None:
                last = parts[position] = bytearray([byte])
            else:
                last.append(byte)
        return {start: bytes(part) for start, part in parts.items()}


class Writing:
    def __init__(self, writer: Any, content: Content) -> None:
        self.writer = writer
        self.content = content
        self.doomed = False


class Found:
    """A stored response that was found or made, and what it should be like as long as it is held."""

    def __init__(self, stored: Any, head: StoredHead, content: Content, version: object = None) -> None:
        self.stored = stored
        self.head = head
        self.content = content
        self.version = version or object()
        """The same for all that are the same stored response."""


Variant = tuple[bytes, tuple[tuple[bytes, bytes | None], ...]]


class StoreMachine(RuleBasedStateMachine):
    """Subclass, and let `make` return a store with room for all of this."""

    writers = Bundle("writers")
    founds = Bundle("founds")

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make()
        self.store.start()
        self.model: dict[Variant, Found] = {}
        """What is stored, in the order it was."""
        self.open: list[Writing] = []
        self.held: list[Found] = []

    def make(self) -> Driver:
        """Return a store that is empty."""
        raise NotImplementedError

    def teardown(self) -> None:
        for found in self.held:
            self.store.release(found.stored)
        self.store.stop()

    def _keep(self, found: Found) -> None:
        variant = found.head.key, found.head.vary
        self.model.pop(variant, None)
        self.model[variant] = found

    def _is_current(self, found: Found) -> bool:
        known = self.model.get((found.head.key, found.head.vary))
        return known is not None and known.version is found.version

    def _hold(self, found: Found) -> Found:
        self.store.hold(found.stored)
        self.held.append(found)
        return found

    @rule(target=writers, head=heads)
    def create(self, head: StoredHead) -> Writing:
        return self._begin(head, None, None, 0)

    @rule(target=writers, base=founds, start=st.integers(0, LENGTH - 1))
    def create_with_base(self, base: Found, start: int) -> Writing:
        return self._begin(base.head, base.stored, base.content, start)

    def _begin(self, head: StoredHead, base: Any, content: Content | None, start: int) -> Writing:
        writing = Writing(self.store.create(head, None, base, start), Content(content, start))
        assert writing.writer is not None
        self.open.append(writing)
        return writing

    @rule(writing=writers, data=st.binary(max_size=LENGTH))
    def write(self, writing: Writing, data: bytes) -> None:
        data = data[: LENGTH - writing.content.at]
        self.store.write(writing.writer, data)
        writing.content.write(data)

    @rule(target=founds, writing=consumes(writers))
    def commit(self, writing: Writing) -> Found:
        self.open.remove(writing)
        stored = self.store.commit(writing.writer, writing.writer.head)
        found = Found(stored, writing.writer.head, writing.content)
        if not writing.doomed:
            self._keep(found)
        return self._hold(found)

    @rule(writing=consumes(writers))
    def abort(self, writing: Writing) -> None:
        self.open.remove(writing)
        self.store.abort(writing.writer)

    @precondition(lambda self: self.model)
    @rule(target=founds, data=st.data())
    def find(self, data: st.DataObject) -> Found:
        """Look up, hold, and use."""
        key, vary = data.draw(st.sampled_from(sorted(self.model, key=repr)))
        (stored,) = [stored for stored in self.store.lookup(key) if stored.head.vary == vary]
        self.store.used(stored)
        known = self.model[key, vary]
        return self._hold(Found(stored, known.head, known.content, known.version))

    @rule(target=founds, found=founds, status=st.integers(200, 299))
    def update(self, found: Found, status: int) -> Found:
        current = self._is_current(found)
        head = found.head.replaced(status=status)
        new = Found(self.store.update(found.stored, head), head, found.content)
        if current:
            self._keep(new)
        return self._hold(new)

    @rule(found=founds)
    def remove(self, found: Found) -> None:
        if self._is_current(found):
            self.store.remove(found.stored)
            del self.model[found.head.key, found.head.vary]

    @rule(selection=selections, soft=st.booleans())
    def purge(self, selection: Selection, soft: bool) -> None:
        gone = [variant for variant, found in self.model.items() if selected(selection, found.head)]
        assert self.store.purge(selection, soft) == len(gone)
        for writing in self.open:
            writing.doomed = writing.doomed or selected(selection, writing.writer.head)
        for key, vary in gone:
            if soft:
                (stored,) = [stored for stored in self.store.lookup(key) if stored.head.vary == vary]
                known = self.model[key, vary].head
                assert stored.head.purged > known.response_time
                head = known.replaced(purged=stored.head.purged)
                self.model[key, vary] = Found(stored, head, self.model[key, vary].content)
            else:
                del self.model[key, vary]

    @rule(selection=selections)
    def list(self, selection: Selection) -> None:
        listed = {(stored.head.key, stored.head.vary) for stored in self.store.entries(selection)}
        assert listed == {variant for variant, found in self.model.items() if selected(selection, found.head)}

    @rule(found=founds)
    def what_is_held_stays(self, found: Found) -> None:
        assert found.stored.head == found.head
        assert self.store.content(found.stored) == found.content.parts()

    @rule(writing=writers, size=st.integers(1, LENGTH))
    def what_is_written_is_there(self, writing: Writing, size: int) -> None:
        there = writing.content.parts()
        for start, part in there.items():
            assert self.store.read_all(writing.writer, start, start + len(part), size) == part
        for position in range(LENGTH):
            left = [start + len(part) - position for start, part in there.items() if start <= position]
            assert self.store.available(writing.writer, position) == max([0, *left[-1:]])

    @invariant()
    def what_is_found_is_what_was_stored(self) -> None:
        assert self.store.stats()["entries"] == len(self.model)
        for key in {key for key, _ in self.model} | set(URLS):
            expected = {vary: found for (other, vary), found in self.model.items() if other == key}
            stored = {stored.head.vary: stored for stored in self.store.lookup(key)}
            assert stored.keys() == expected.keys()
            for vary, found in expected.items():
                assert stored[vary].head == found.head
                assert self.store.content(stored[vary]) == found.content.parts()
