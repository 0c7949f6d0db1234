"""The configuration as typed values: what a YAML file means, with every default. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from twisted_wasmproxy.config.expressions import Expression
from twisted_wasmproxy.interfaces import Phase

__all__ = [
    "AccessConfig",
    "AccessLogConfig",
    "AdminConfig",
    "CacheConfig",
    "CacheKeyConfig",
    "CacheRules",
    "CacheStoreConfig",
    "Configuration",
    "DiskCacheConfig",
    "FinishConfig",
    "HeadersConfig",
    "HealthConfig",
    "LimitsConfig",
    "ListenerConfig",
    "Location",
    "NativeFilterConfig",
    "RedirectConfig",
    "RemapConfig",
    "ServerConfig",
    "TimeoutsConfig",
    "UpstreamConfig",
    "UpstreamTLSConfig",
    "VMConfig",
    "WasmFilterConfig",
]

Network = IPv4Network | IPv6Network
MIB = 1024 * 1024


@dataclass(frozen=True)
class Location:
    """Where a value stands: for messages. Line 0 is the file as a whole, an empty key its top level."""

    file: str
    line: int
    key: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}" if self.key else place


@dataclass(frozen=True)
class AccessConfig:
    """Who may use a forward proxy, and for what. First match wins in each list of networks; deny before allow.

    The clients count for every request to the listener; all else for those whose origin the client names.
    """

    allow_clients: tuple[Network, ...] = ()
    """Client networks; the default of the loader is loopback, link-local and private addresses."""
    deny_clients: tuple[Network, ...] = ()
    connect_ports: tuple[int, ...] = (443,)
    """Ports that CONNECT may reach; empty for any."""
    ports: tuple[int, ...] = ()
    """Ports that absolute-form requests may reach; empty for any."""
    deny_destinations: tuple[Network, ...] = ()
    """Addresses that may not be reached, checked after the name is resolved; those of `access.GUARDED` besides."""
    allow_destinations: tuple[Network, ...] = ()
    """Exceptions to deny_destinations, and to what is denied without it."""
    allow_own_listeners: bool = False
    """Whether this proxy's own listeners may be reached; the control API never may."""
    deny_hosts: tuple[str, ...] = ()
    """Host names, `*.example.com` for a domain and all below it."""
    allow_hosts: tuple[str, ...] = ()
    """If not empty, no other host may be reached."""


@dataclass(frozen=True)
class LimitsConfig:
    """What one client may ask of a listener."""

    request_line: int = 16 * 1024
    header_bytes: int = 64 * 1024
    header_count: int = 200
    underscores: Literal["drop", "refuse", "pass"] = "drop"
    """What becomes of a request's field with an underscore in its name."""
    body: int = 0
    """Bytes of a request body, 413 beyond; 0 for no limit."""
    min_rate: int = 240
    """Bytes a second at which a client must send content and read responses, on average and beyond the time that
    `idle` allows; 408, or the end of the connection, below. 0 for no limit."""
    connections: int = 30_000
    """Open client connections in all; beyond: 503 and close."""
    connections_per_client: int = 0
    """For one client address; 0 for no limit; beyond: 503 and close."""
    buffer: int = 1 * MIB
    """Bytes that one filter may hold of one body; 413 or 502 beyond."""


@dataclass(frozen=True)
class TimeoutsConfig:
    header: float = 30.0
    """From the first byte of a request head to its end; 408 beyond."""
    keep_alive: float = 75.0
    """Between requests on a client connection."""
    idle: float = 60.0
    """Without a byte either way within a message; 408 to a silent client, 504 for a silent origin."""
    total: float = 0.0
    """From the first byte of a request to the last of its response; 0 for no limit."""
    tunnel: float = 300.0
    """Without a byte either way in a CONNECT or Upgrade tunnel."""
    drain: float = 30.0
    """How long a stop waits for the transactions in flight."""


@dataclass(frozen=True)
class ListenerConfig:
    endpoint: str
    """A Twisted server endpoint description."""
    mode: Literal["reverse", "forward"] = "reverse"
    access: AccessConfig = field(default_factory=AccessConfig)
    """Forward mode only."""
    trusted_proxies: tuple[Network | None, ...] = ()
    """Reverse mode only: peers whose X-Forwarded-Proto is the scheme of a request; None: those of a Unix socket."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    location: Location | None = None


@dataclass(frozen=True)
class ServerConfig:
    """One server of an upstream, from `http://host:port` or `https://host:port`."""

    host: str
    port: int
    tls: bool = False
    weight: int = 1

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True)
class HealthConfig:
    """Passive health: a server that fails `max_failures` times in a row rests for `rest`, doubled up to `max_rest`."""

    max_failures: int = 3
    rest: float = 5.0
    max_rest: float = 300.0


@dataclass(frozen=True)
class UpstreamTLSConfig:
    verify: bool = True
    ca_file: Path | None = None
    """PEM file of trust roots; the system's where None."""
    server_name: str | None = None
    """SNI and the name to verify; the server's host where None."""
    certificate: Path | None = None
    """PEM file of a client certificate with its key."""


@dataclass(frozen=True)
class UpstreamConfig:
    name: str
    servers: tuple[ServerConfig, ...]
    balance: Literal["round_robin", "least_connections", "consistent_hash"] = "round_robin"
    hash_on: str = "path"
    """For consistent_hash: `path`, `host`, `source` (client address) or `header:NAME`."""
    connect_timeout: float = 5.0
    max_connections: int = 1024
    """To one server, in use and idle together; requests beyond wait for up to connect_timeout, then 503."""
    max_idle: int = 64
    """Idle connections kept to one server."""
    idle_timeout: float = 60.0
    retries: int = 1
    """Further attempts where RFC 9110 section 9.2.2 allows one."""
    health: HealthConfig = field(default_factory=HealthConfig)
    tls: UpstreamTLSConfig = field(default_factory=UpstreamTLSConfig)
    location: Location | None = None


@dataclass(frozen=True)
class RedirectConfig:
    """Answer without an origin. `to` may use `$1` (groups of `regex`), `$host`, `$path`, `$query`, `$scheme`."""

    to: str
    status: int = 302


@dataclass(frozen=True)
class CacheKeyConfig:
    """What tells one stored resource from another, beside scheme and path (RFC 9111 section 2)."""

    query: Literal["keep", "drop", "sort"] = "keep"
    """`sort`: parameters in order of name (those of one name keep theirs)."""
    query_only: tuple[str, ...] = ()
    """If not empty, only these parameters count; `utm_*` for all that begin so."""
    query_without: tuple[str, ...] = ()
    """These parameters do not count."""
    host: bool = True
    """False: all hosts share what is stored."""
    headers: tuple[str, ...] = ()
    """Request fields that count."""
    cookies: tuple[str, ...] = ()
    """Cookies that count."""


UNKEYED_FIELDS = (
    "Forwarded",
    "Front-End-Https",
    "X-Forwarded-Host",
    "X-Forwarded-Path",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-Host",
    "X-Original-Method",
    "X-Original-Uri",
    "X-Original-Url",
    "X-Override-Url",
    "X-Rewrite-Url",
    "X-Url-Scheme",
)
"""Request fields by which applications are known to take another host, scheme, path or method than the key has."""


@dataclass(frozen=True)
class FinishConfig:
    """How far a response is fetched that nobody waits for any more."""

    remaining: int = 1 * MIB
    """Fetch what is missing if it is no more bytes than these."""
    completed: float = 0.5
    """Or if at least this part of the content has come; 0: always."""
    timeout: float = 30.0
    """Seconds after which it is given up all the same; 0 for no limit."""


@dataclass(frozen=True)
class CacheRules:
    """How one remap rule uses the cache; what a rule does not say is as the `cache` section says."""

    enabled: bool = True
    methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    """Methods whose responses may be stored and, but for POST, answered from the cache. A POST response is stored only
    if its Content-Location is its own URI (RFC 9110 section 9.3.3), and answers GET and HEAD."""
    directives: Literal["honor", "ignore"] = "honor"
    """`ignore`: the origin's Cache-Control, Expires and Pragma count for nothing (no-store and private too)."""
    client_directives: Literal["honor", "ignore"] = "honor"
    """`ignore`: a request's Cache-Control and Pragma count for nothing, but for only-if-cached."""
    ttl: float | None = None
    """Overrides the lifetime that the origin gives, in seconds; what it forbids to store is not stored."""
    min_ttl: float = 0.0
    """Shorter lifetimes are raised to this, but for responses that must be validated (no-cache)."""
    max_ttl: float | None = None
    default_ttl: float | None = None
    """For a response without lifetime whose status may be stored by heuristics; None: heuristics by Last-Modified."""
    heuristic_fraction: float = 0.1
    """Part of the time since Last-Modified that a response is taken to be fresh (RFC 9111 section 4.2.2)."""
    heuristic_max: float = 86400.0
    negative: tuple[tuple[int, float], ...] = ()
    """(status, ttl) for responses that say nothing themselves: negative caching."""
    stale_while_revalidate: float = 0.0
    """Seconds after its lifetime that a response may be served while it is validated in the background, where the
    response does not say (RFC 5861 section 3)."""
    stale_if_error: float = 86400.0
    """Seconds after its lifetime that a response may be served when the origin fails, where the response does not say
    (RFC 5861 section 4). 0: only where it says so."""
    error_statuses: tuple[int, ...] = (500, 502, 503, 504)
    """What counts as failure of the origin, beside no answer at all."""
    request_error_statuses: tuple[int, ...] = (400, 408, 411, 413, 414, 415, 421, 425, 426, 428, 429, 431, 511)
    """Statuses that speak of one request, its form, its size or its sender, and not of the resource: not stored
    whatever the response says, unless `negative` has them. RFC 6585 forbids it for 428, 429, 431 and 511."""
    heuristic_with_cookie: bool = False
    """Whether heuristics by Last-Modified count for requests with Cookie, too, where the response is not `public` and
    neither its Vary nor `key` has that field."""
    strip_unkeyed: tuple[str, ...] = ()
    """Fields that are taken out of GET and HEAD requests to origins; those in `key.headers` stay."""
    set_cookie: Literal["strip", "store", "bypass"] = "strip"
    """A response with Set-Cookie: `strip`: stored without the field, and only if it has an explicit lifetime; `store`:
    stored as it is, as RFC 9111 section 7.3 allows; `bypass`: not stored."""
    invalid_age: Literal["stale", "ignore"] = "ignore"
    """A response whose Age is not one number: as RFC 9111 section 5.1 recommends, by the first of several, and as if
    there were none if that is no number; or taken for old (`stale`)."""
    surrogate_keys: tuple[str, ...] = ()
    """Given to everything that is stored, beside those in the response."""
    collapse: bool = True
    """Whether one request to the origin serves all that ask for the same meanwhile."""
    collapse_timeout: float = 5.0
    """Seconds that a request waits for the head of an answer that another has asked for, before it asks itself; 0: as
    long as it takes."""
    finish_abandoned: FinishConfig | None = field(default_factory=FinishConfig)
    """When a response that nobody waits for any more is fetched to its end and stored; None: never."""
    key: CacheKeyConfig = field(default_factory=CacheKeyConfig)


@dataclass(frozen=True)
class DiskCacheConfig:
    path: Path
    """A folder; made if it is not there."""
    size: int
    """Bytes that bodies and heads may take; the least used go first."""
    max_object: int = 0
    """Bytes of the largest body kept; 0: a quarter of `size`."""


@dataclass(frozen=True)
class CacheStoreConfig:
    """A store by a Twisted plugin (`ICacheStoreFactory`), instead of memory and disk."""

    name: str
    configuration: object = None
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True)
class CacheConfig:
    memory: int = 256 * MIB
    """Bytes for bodies and heads in the memory of a process; 0 for none."""
    memory_object: int = 0
    """Bytes of the largest body kept in memory; 0: an eighth of `memory`."""
    disk: DiskCacheConfig | None = None
    store: CacheStoreConfig | None = None
    rules: CacheRules = field(default_factory=CacheRules)
    """Of requests whose remap rule says nothing, and of forward listeners."""
    targeted: tuple[str, ...] = ("CDN-Cache-Control",)
    """Fields that stand in for Cache-Control here, the first that is there and valid counts (RFC 9213)."""
    surrogate_key_header: str | None = "Surrogate-Key"
    """Response field with the keys of a response, separated by spaces; it is not passed on to clients."""
    status: bool = True
    """Whether responses get a Cache-Status field (RFC 9211)."""
    status_name: str = "wasmproxy"
    status_key: bool = True
    """Whether Cache-Status has the cache key."""
    purge: tuple[Network, ...] = ()
    """Client networks that may use the method PURGE; the default of the loader is loopback."""
    purge_token: str | None = field(default=None, repr=False)
    """What they must know besides; None: nothing, but no proxy may stand in between."""


@dataclass(frozen=True)
class AdminConfig:
    """The control API."""

    endpoint: str
    """A Twisted server endpoint description."""
    location: Location | None = None
    token: str | None = field(default=None, repr=False)
    """What callers must know; None: nothing, but no proxy and no web page may stand in between."""


@dataclass(frozen=True)
class RemapConfig:
    """One rule. All given conditions must hold; the first rule that matches wins."""

    name: str = ""
    """For filters: the property `route_name`; where empty, the rule's place in the file."""
    host: str | None = None
    """Host without port, without case; `*.example.com` for any name below."""
    path: str | None = None
    """Prefix of the path."""
    regex: Expression | None = None
    """Searched from the start in `path?query`; its groups are `$1`... in `rewrite` and `redirect.to`."""
    methods: tuple[str, ...] = ()
    upstream: str | None = None
    redirect: RedirectConfig | None = None
    respond: int | None = None
    """Answer this status with an empty body."""
    rewrite: str | None = None
    """Replaces the matched prefix of the path (or, with `regex`, what the expression matched)."""
    preserve_host: bool = True
    """Send the client's Host to the origin, else the server's own."""
    cache: CacheRules | None = None
    """None: the rules of the `cache` section."""
    location: Location | None = None


@dataclass(frozen=True)
class HeadersConfig:
    """What the proxy itself adds."""

    via: str | None = "wasmproxy"
    """Pseudonym in Via (RFC 9110 section 7.6.3); None for no Via."""
    x_forwarded: bool = True
    """X-Forwarded-For, -Proto, -Host: appended to what the client sent."""
    forwarded: bool = False
    """Forwarded (RFC 7239)."""
    server: str | None = None
    """Server on answers that the proxy makes itself."""


@dataclass(frozen=True)
class AccessLogConfig:
    path: Path | None
    """None for standard output."""
    format: str = "extended"
    """`squid`, `common`, `extended`, `extended2`, `json`, or a Traffic Server format string with `%<field>`."""


@dataclass(frozen=True)
class RestartConfig:
    """How a VM that fails is replaced."""

    traps: int = 1000
    """How many in `within` seconds are made good at once; beyond, a fresh VM comes after a delay that doubles."""
    within: float = 60.0
    spare: bool = True
    """Whether a started VM stands by."""


@dataclass(frozen=True)
class VMConfig:
    code: Path
    runtime: str = "auto"
    """`auto`, `wasmtime`, `wasmer`, or Traffic Server's names for them."""
    vm_id: str = ""
    configuration: bytes = b""
    environment: tuple[tuple[str, str], ...] = ()
    """Already resolved: host_env_keys that are set, then key_values."""
    allow_precompiled: bool = True
    cpu_limit: float = 1.0
    """Seconds for one callback; 0 for none."""
    memory_limit: int = 128 * MIB
    host_memory_limit: int | None = None
    """Bytes that the host may keep for the module; None for memory_limit, 32 MiB at most."""
    lax_imports: bool = False
    """Satisfy unknown function imports by stubs instead of refusing the module."""
    restart: RestartConfig = RestartConfig()
    location: Location | None = None


@dataclass(frozen=True)
class WasmFilterConfig:
    vm: VMConfig
    name: str = ""
    root_id: str = ""
    configuration: bytes = b""
    fail_open: bool = False
    phase: Phase = Phase.CLIENT
    capabilities: frozenset[str] | None = None
    """Allowed imports and callbacks; None for all."""
    allow_on_headers_stop_iteration: bool = False
    """Envoy's key: StopIteration from a headers callback holds the headers only, and the body callbacks go on."""
    location: Location | None = None


@dataclass(frozen=True)
class NativeFilterConfig:
    native: str
    """Name of an IFilterFactory plugin."""
    name: str = ""
    configuration: object = None
    fail_open: bool = False
    phase: Phase = Phase.CLIENT
    location: Location | None = None


@dataclass(frozen=True)
class Configuration:
    listeners: tuple[ListenerConfig, ...]
    upstreams: tuple[UpstreamConfig, ...] = ()
    remap: tuple[RemapConfig, ...] = ()
    filters: tuple[WasmFilterConfig | NativeFilterConfig, ...] = ()
    headers: HeadersConfig = field(default_factory=HeadersConfig)
    cache: CacheConfig | None = None
    """None: nothing is cached."""
    admin: AdminConfig | None = None
    access_log: tuple[AccessLogConfig, ...] = ()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Those of the file; each listener's are in its own configuration."""
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    """The same."""
    log_levels: tuple[tuple[str, str], ...] = ()
    """(namespace, level) pairs for twisted.logger; `""` is the default level."""
    node: tuple[tuple[str, str], ...] = ()
    """Values of the property `node` and of `xds.node` (id, cluster, ...)."""
    code_cache: Path | None = None
    """Folder for compiled modules; None for the user's cache folder."""
    warnings: tuple[str, ...] = ()
    """What the loader found odd but harmless, as `file:line: key: text`."""
    path: Path | None = None
    """The file it came from."""
    more_paths: tuple[Path, ...] = ()
    """Further Traffic Server plugin files that were given with it; `load(path, *more_paths)` reads it all again."""
