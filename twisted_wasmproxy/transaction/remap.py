"""Remap rules: which upstream a request goes to and under which path, or which redirect or status answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from twisted_wasmproxy.config.expressions import Expression, Found, without_groups
from twisted_wasmproxy.config.model import RemapConfig
from twisted_wasmproxy.http.messages import Request

__all__ = ["Match", "RemapTable"]


class Match:
    """What a rule makes of one request: exactly one of `upstream`, `redirect` and `respond` is set."""

    __slots__ = ("label", "path", "preserve_host", "redirect", "respond", "rule", "upstream")

    def __init__(
        self,
        rule: RemapConfig,
        label: bytes,
        path: bytes,
        upstream: str | None = None,
        redirect: tuple[int, bytes] | None = None,
        respond: int | None = None,
    ) -> None:
        self.rule = rule
        self.label = label
        """Name of the rule, for people: the one that it was given, else its place in the configuration."""
        self.path = path
        """Target to send to the upstream, query included."""
        self.upstream = upstream
        """Name of the upstream to ask."""
        self.redirect = redirect
        """Status and value of Location."""
        self.respond = respond
        """Status to answer with."""
        self.preserve_host = rule.preserve_host


class RemapTable:
    """The rules in order; the first whose conditions all hold wins.

    - A host compares without port, case and final dot; `*.example.com` is any name below example.com, not itself; an
      IPv6 address may be written with or without brackets.
    - A path is a literal prefix of the target as the client sent it: `/api` matches `/api`, `/api/x` and `/apiary`;
      `/api/` only what is below. Nothing is decoded or normalised, neither to match nor to forward: `/%61pi/` does not
      match `/api/`, and `/static/../admin` matches `/static/`. An origin that resolves dot segments or decodes before
      it decides must guard itself: a prefix rule chooses where a request goes, it is no access control.
    - A regular expression is matched at the start of the target (path and query), by RE2 where that can serve it.
    - A rewrite replaces the prefix, or what the expression matched; a query survives where the rewrite does not eat
      it. Without path and regex it is put in front. Where the parts would meet with two slashes one is dropped.
    - In `rewrite` and `redirect.to`, `$1` to `$99` or `${1}` are the groups of the expression and `$$` is a dollar;
      `$host` (without port), `$path` (without query), `$query` (without `?`) and `$scheme` are those of the request.
      A `?` with nothing after it is dropped from the end of a redirect.

    What is rewritten or redirected to never holds white space or control characters (they are percent-encoded), and
    begins with exactly one slash, but for a redirect whose text itself begins with a scheme or `//`: a request cannot
    turn `to: "$path"` into a redirect to another host.
    """

    def __init__(self, rules: Sequence[RemapConfig]) -> None:
        """Compile the rules; raises ValueError, with the place of the rule, for a template that cannot be filled in."""
        compiled = [_Rule(rule) for rule in rules]
        self._any_host = all(rule.host is None and rule.below is None for rule in compiled)
        # For each host that a rule names, the rules that can apply to it, in order; for all others, those naming none.
        self._others = tuple(rule for rule in compiled if rule.host is None)
        self._by_host = {
            host: tuple(rule for rule in compiled if rule.may_apply_to(host))
            for host in {rule.host for rule in compiled if rule.host is not None}
        }

    def match(self, request: Request) -> Match | None:
        """Return what the first matching rule makes of the request, or None if no rule matches. Never raises."""
        path = request.path
        if self._any_host:
            host = b""
            rules = self._others
        else:
            host = host_of(request.authority)
            rules = self._by_host.get(host, self._others)
        for rule in rules:
            if rule.below is not None and not host.endswith(rule.below):
                continue
            if rule.prefix is not None and not path.startswith(rule.prefix):
                continue
            if rule.methods is not None and request.method not in rule.methods:
                continue
            groups = None
            if rule.regex is not None:
                groups = rule.regex.match(path)
                if groups is None:
                    continue
            return rule.apply(request, groups)
        return None


class _Rule:
    __slots__ = ("below", "config", "host", "label", "location", "methods", "prefix", "regex", "rewrite")

    def __init__(self, config: RemapConfig) -> None:
        self.config = config
        self.label = (config.name or (config.location.key if config.location is not None else "")).encode()
        self.host: bytes | None = None
        self.below: bytes | None = None
        if config.host is not None and config.host != "*":
            if config.host.startswith("*."):
                self.below = host_of(config.host[1:].encode())
            else:
                host = config.host
                bare = ":" in host and not host.startswith("[")
                self.host = host_of((f"[{host}]" if bare else host).encode())
        self.prefix = config.path.encode() if config.path else None
        self.methods = frozenset(method.encode() for method in config.methods) or None
        self.regex = config.regex
        try:
            self.rewrite = None if config.rewrite is None else _Template(config.rewrite, config.regex)
            self.location = None if config.redirect is None else _Template(config.redirect.to, config.regex)
        except ValueError as error:
            raise ValueError(f"{config.location}: {error}" if config.location else str(error)) from None
        if config.regex is not None and not any(
            template is not None and template.uses_groups for template in (self.rewrite, self.location)
        ):
            self.regex = without_groups(config.regex)

    def may_apply_to(self, host: bytes) -> bool:
        if self.host is not None:
            return self.host == host
        return self.below is None or host.endswith(self.below)

    def apply(self, request: Request, groups: Found | None) -> Match:
        config = self.config
        path = request.path
        if config.redirect is not None and self.location is not None:
            return Match(
                config, self.label, path, redirect=(config.redirect.status, self.location.location(request, groups))
            )
        if config.respond is not None:
            return Match(config, self.label, path, respond=config.respond)
        if self.rewrite is not None and path != b"*":
            if groups is not None:
                rest = path[groups.end() :]
            elif self.prefix is not None:
                rest = path[len(self.prefix) :]
            else:
                rest = path
            path = self.rewrite.path(request, groups, rest)
        return Match(config, self.label, path, upstream=config.upstream)


def host_of(authority: bytes) -> bytes:
    """Return the host of `[userinfo@]host[:port]` in the form in which hosts compare; IPv6 in brackets."""
    host = authority.lower()
    if b"@" in host:
        host = host[host.rindex(b"@") + 1 :]
    if host.startswith(b"["):
        host = host[: host.find(b"]") + 1] or host
        try:
            return b"[%s]" % str(ip_address(host[1:-1].decode("latin-1"))).encode()
        except ValueError:
            return host
    if b":" in host:
        host = host[: host.index(b":")]
    return host[:-1] if host.endswith(b".") else host


_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([0-9]{1,2}|[A-Za-z_]+))?")
_ABSOLUTE = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*|\$scheme|\$\{scheme\}):|//")
_NAMES = ("host", "path", "query", "scheme")

_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f]")
"""What no target may hold."""
_FORBIDDEN_IN_LOCATION = re.compile(rb"[\x00-\x20\"<>\\^`{|}\x7f-\xff]")
"""What no URI may hold (RFC 3986 section 2)."""
_FORBIDDEN_IN_HOST = re.compile(rb"[^A-Za-z0-9.\-_~!$&'()*+,;=:\[\]%]")
"""What no host may hold (RFC 3986 section 3.2.2)."""

Filler = Callable[[Request, Found | None], bytes]


class _Template:
    """Text with variables, taken apart once."""

    __slots__ = ("_absolute", "_parts", "uses_groups")

    def __init__(self, text: str, regex: Expression | None) -> None:
        self._absolute = _ABSOLUTE.match(text) is not None
        self.uses_groups = False
        self._parts: list[bytes | Filler] = []
        end = 0
        for variable in _VARIABLE.finditer(text):
            self._parts.append(text[end : variable.start()].encode())
            end = variable.end()
            dollar, braced, plain = variable.groups()
            if dollar:
                self._parts.append(b"$")
            else:
                name = braced or plain or ""
                self.uses_groups = self.uses_groups or name.isdigit()
                self._parts.append(_filler(name, regex))
        self._parts.append(text[end:].encode())

    def _fill(self, request: Request, groups: Found | None) -> bytes:
        return b"".join([part if isinstance(part, bytes) else part(request, groups) for part in self._parts])

    def path(self, request: Request, groups: Found | None, rest: bytes) -> bytes:
        """Return the template filled in, with `rest` behind it, as a target in origin form."""
        start = self._fill(request, groups)
        if start.endswith(b"/") and rest.startswith(b"/"):
            rest = rest[1:]
        return _one_slash(_encode(_FORBIDDEN, start + rest))

    def location(self, request: Request, groups: Found | None) -> bytes:
        """Return the template filled in, as the value of Location."""
        location = _encode(_FORBIDDEN_IN_LOCATION, self._fill(request, groups))
        if location.endswith(b"?"):
            location = location[:-1]
        return location if self._absolute else _one_slash(location)


def _filler(name: str, regex: Expression | None) -> Filler:
    if name.isdigit():
        number = int(name)
        if regex is None or number > regex.groups:
            raise ValueError(f"${name}: the rule's regex has no such group")
        return lambda request, groups: (groups.group(number) or b"") if groups is not None else b""
    if name == "host":
        return lambda request, groups: _encode(_FORBIDDEN_IN_HOST, host_of(request.authority))
    if name == "path":
        # The asterisk of OPTIONS is no path: behind the host it would be part of the name.
        return lambda request, groups: request.path.partition(b"?")[0] if request.path != b"*" else b""
    if name == "query":
        return lambda request, groups: request.path.partition(b"?")[2]
    if name == "scheme":
        return lambda request, groups: request.scheme
    raise ValueError(f"${name}: no such variable; there are {', '.join(_NAMES)}, groups, and $$ for a dollar")


def _encode(forbidden: re.Pattern[bytes], text: bytes) -> bytes:
    """Percent-encode the octets that are `forbidden`, none of which is a percent sign."""
    if forbidden.search(text) is None:
        return text
    for octet in set(text):  # a pass for each octet there is costs far less than a call for each place
        found = bytes((octet,))
        if forbidden.match(found):
            text = text.replace(found, b"%%%02X" % octet)
    return text


def _one_slash(path: bytes) -> bytes:
    return b"/" + path.lstrip(b"/")
