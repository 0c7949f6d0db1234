"""Files that are no configuration at all, or mean harm: one clear error each, in bounded time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.config.support import EMPTY_MODULE, MINIMAL, problems, problems_of
from twisted_wasmproxy import config
from twisted_wasmproxy.config import ConfigurationError
from twisted_wasmproxy.config.document import MAX_DEPTH, MAX_SIZE
from twisted_wasmproxy.config.reader import keys_of
from twisted_wasmproxy.config.schema import TOP


def faults_of(folder: Path, data: bytes) -> list[str]:
    path = folder / "proxy.yaml"
    path.write_bytes(data)
    return problems_of(lambda: config.load(path), folder)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems_of(lambda: config.load(tmp_path / "nope.yaml"), tmp_path) == ["nope.yaml: no such file"]


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert problems_of(lambda: config.load(tmp_path / "d"), tmp_path) == ["d: is a directory, not a file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.touch(0o000)
    assert problems_of(lambda: config.load(path), tmp_path) == ["secret.yaml: cannot be read: Permission denied"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "proxy.yaml: is empty"),
        (b"# nothing\n", "proxy.yaml: is empty"),
        (b"5", "proxy.yaml:1: must be a mapping, not '5'"),
        (b"- a\n", "proxy.yaml:1: must be a mapping, not a list"),
        (b"a: 1\nb: \xff\n", "proxy.yaml:2: is not UTF-8 text"),
        ("a: 1".encode("utf-16"), "proxy.yaml:1: is not UTF-8 text"),
        (b"a: 1\nb: \0\n", "proxy.yaml:2: YAML allows no character U+0000"),
        (b"a: [1,\nb: 2\n", "proxy.yaml:3: is not valid YAML: "),
        (b"a: 1\n\tb: 2\n", "proxy.yaml:2: is not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", "proxy.yaml:2: is not valid YAML: expected a single document"),
        (b"a: *nowhere\n", "proxy.yaml:1: is not valid YAML: found undefined alias 'nowhere'"),
        (b'a: "\\UFFFFFFFF"\n', "proxy.yaml: is not valid YAML: "),
        (b"? [a]\n: 1\n", "proxy.yaml:1: a key must be plain text"),
        (b"a: &x\n  b: *x\n", "proxy.yaml:1: a.b: an alias refers to a node that contains it"),
        (b"a:\n  <<: 5\n", "proxy.yaml:2: a.<<: only mappings can be merged"),
        (b"[" * 50_000, "proxy.yaml: is nested deeper than 100 levels"),
        (b"a: " + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, f"proxy.yaml:1: a{'[0]' * (MAX_DEPTH - 1)}: is nested deeper"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_cannot_be_read_as_a_configuration(tmp_path: Path, data: bytes, problem: str) -> None:
    (found,) = faults_of(tmp_path, data)
    assert found.startswith(problem)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("\ufeff" + MINIMAL)
    assert config.load(path).upstreams[0].name == "origin"


def test_a_file_of_many_megabytes_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    assert faults_of(tmp_path, b"#" * (MAX_SIZE + 1)) == ["proxy.yaml: is larger than 4 MiB"]


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found = faults_of(tmp_path, "\n".join(lines).encode())
    assert found[0].endswith("expands to more than 100000 values")


def test_a_bomb_of_merge_keys_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]
    found = faults_of(tmp_path, "\n".join(lines).encode())
    assert found[0].endswith("expands to more than 100000 values")


def test_duplicate_keys_and_unknown_tags_are_told_beside_other_faults(tmp_path: Path) -> None:
    assert problems(
        tmp_path,
        """\
        listeners: [{endpoint: "tcp:1"}]
        upstreams:
          a: {servers: ["http://h"]}
          a: {servers: []}
        node: {id: !python/name "x", cluster: "\\ud800"}
        limts: {}
        """,
    ) == [
        "proxy.yaml:4: upstreams.a: duplicate key, first given in line 3",
        "proxy.yaml:4: upstreams.a.servers: must not be empty",
        "proxy.yaml:5: node.id: unknown YAML tag !python/name",
        "proxy.yaml:5: node.cluster: has half of a surrogate pair",
        "proxy.yaml:6: limts: unknown key; did you mean 'limits'?",
    ]


def test_no_yaml_tag_makes_python_objects(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    (problem,) = problems(
        tmp_path, f"listeners: !!python/object/apply:os.mkdir ['{marker}']\n"
    )[:1]  # fmt: skip
    assert "unknown YAML tag tag:yaml.org,2002:python/object/apply:os.mkdir" in problem
    assert not marker.exists()


def test_the_message_lists_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("a: 1\nb: 2\n")
    with pytest.raises(ConfigurationError) as raised:
        config.load(path)
    assert str(raised.value).splitlines() == [str(problem) for problem in raised.value.problems]
    assert {problem.location.line for problem in raised.value.problems} == {1, 2}


_WORDS = [
    *sorted({part for key in keys_of(TOP) for part in key.replace("[]", "").split(".")} - {"*"}),
    *("config", "vmConfig", "rootId", "file", "native", "vm_config", "code", "local", "filename", "@type", "value"),
    *("<<", "", "a\nb", "\0", "\ud800", "🦆"),
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(
        [
            *(
                "tcp:1",
                "ssl:1",
                "unix:x",
                "http://h:1",
                "http://[",
                "10.0.0.0/8",
                "%<chi>",
                "%<",
                "64KiB",
                "3s",
                "(",
                ".",
            ),
            *("forward", "filter.wasm", "type.googleapis.com/google.protobuf.Struct", "$1", "\\", "::1", "*.x", "~"),
        ]
    ),
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner),
    max_leaves=20,
)


def check_any(folder: Path, tree: object) -> None:
    """Load a tree; ConfigurationError with a text for each problem is all that may come out of it."""
    (folder / "filter.wasm").write_bytes(EMPTY_MODULE)
    path = folder / "proxy.yaml"
    path.write_bytes(yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
    try:
        config.load(path)
    except ConfigurationError as error:
        texts = [problem.text for problem in error.problems]
    else:
        return
    assert texts
    assert all(texts)


@given(tree=_TREES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_is_a_configuration_or_a_configuration_error(tmp_path: Path, tree: object) -> None:
    check_any(tmp_path, tree)


def _typed(key: str) -> st.SearchStrategy[object]:
    """Values for a section with its own keys below, so that the tree gets past the first level."""
    below: dict[str, set[str]] = {}
    for path in keys_of(TOP):
        parent, _, name = path.rpartition(".")
        below.setdefault(parent, set()).add(name)

    def value(path: str, depth: int) -> st.SearchStrategy[object]:
        options: list[st.SearchStrategy[object]] = [_SCALARS]
        if path in below and "*" not in below[path]:
            options.append(
                st.fixed_dictionaries({}, optional={name: value(f"{path}.{name}", depth + 1) for name in below[path]})
            )
        if f"{path}[]" in below:
            options.append(st.lists(value(f"{path}[]", depth + 1), max_size=2))
        if f"{path}.*" in below:
            options.append(st.dictionaries(st.sampled_from(["a", "b"]), value(f"{path}.*", depth + 1)))
        return st.one_of(options)

    return value(key, 0)


@given(sections=st.fixed_dictionaries({}, optional={key: _typed(key) for key in keys_of(TOP) if "." not in key}))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_of_known_keys_are_a_configuration_or_an_error(tmp_path: Path, sections: object) -> None:
    check_any(tmp_path, sections)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_configuration_or_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as raised:
        config.load(path)
    assert raised.value.problems
