"""A client of the control API: finds its address, makes one call, and says what to do where that fails."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from twisted_wasmproxy import config
from twisted_wasmproxy.config import ConfigurationError
from twisted_wasmproxy.config.endpoints import Described

__all__ = ["DEFAULT_ADDRESS", "Client", "ClientError", "client_for"]

DEFAULT_ADDRESS = "http://127.0.0.1:9901"
TOKEN_VARIABLE = "WASMPROXY_TOKEN"  # noqa: S105  # the name of a variable
TIMEOUT = 60.0
"""Seconds without a byte; a purge of a large disk store takes a while."""

_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what a server listens on, not we


class ClientError(Exception):
    """A call that failed; the text is for the operator."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status
        """Of the answer; 0 if there was none."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Makes calls, each on a connection of its own."""

    def __init__(self, address: str, token: str | None = None) -> None:
        """`address`: `http://host:port`, or a server endpoint description of kind tcp, tcp6 or unix. `token`: its own.

        Raises ClientError if it is neither.
        """
        self.address = address
        self._token = token
        self._path = ""
        if address.startswith("http://"):
            self._host, self._port = _host_and_port(address)
        else:
            self._read_endpoint(address)

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Raises ClientError."""
        return self._call("GET", f"{path}?{urlencode(parameters)}" if parameters else path, None)

    def post(self, path: str, members: Mapping[str, object]) -> dict[str, Any]:
        """Raises ClientError."""
        return self._call("POST", path, json.dumps(members))

    def _call(self, method: str, target: str, body: str | None) -> dict[str, Any]:
        connection = (
            _UnixConnection(self._path)
            if self._path
            else http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        )
        # `localhost` whatever the proxy's name is: it refuses other names for fear of web pages, which this is not.
        fields = {"Host": "localhost", "Connection": "close"}
        if self._token is not None:
            fields["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            fields["Content-Type"] = "application/json"
        try:
            connection.request(method, target, body, fields)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise ClientError(
                f"cannot reach the control API at {self.address}: {reason}; is the proxy running, with this address as "
                "'admin' in its configuration? (--config FILE takes the address from there, --admin says it)"
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            raise ClientError(f"what answers at {self.address} is not the control API of this proxy") from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise ClientError(f"what answers at {self.address} is not the control API of this proxy")
        if response.status == 401:
            raise ClientError(
                f"{answer.get('error')}: give it by --token-file, in {TOKEN_VARIABLE}, or take it from the "
                "proxy's configuration by --config",
                401,
            )
        if response.status != 200:
            raise ClientError(str(answer.get("error", f"status {response.status}")), response.status)
        return answer

    def _read_endpoint(self, description: str) -> None:
        try:
            endpoint = Described.of(description)
        except ValueError as error:
            raise ClientError(f"{description}: {error}") from error
        if endpoint.kind == "unix" and endpoint.part("address", 0):
            self._path = endpoint.part("address", 0)
        elif endpoint.kind in ("tcp", "tcp6") and endpoint.port.isdigit() and int(endpoint.port):
            self._host = _ANY.get(endpoint.interface, endpoint.interface)
            if endpoint.kind == "tcp6" and not endpoint.interface:
                self._host = "::1"
            self._port = int(endpoint.port)
        else:
            raise ClientError(f"no way to {description} is known; give --admin as http://HOST:PORT or unix:PATH")


def client_for(address: str | None, file: Path | None, token_file: Path | None = None) -> Client:
    """Return a client for an address, or for that in a configuration file, or the default. Raises ClientError.

    Its token is that in `token_file`, else in the environment, else in the configuration file.
    """
    token = _token(token_file)
    if file is None:
        return Client(address or DEFAULT_ADDRESS, token)
    try:
        admin = config.load(file).admin
    except ConfigurationError as error:
        raise ClientError("\n".join(map(str, error.problems))) from error
    if admin is None:
        raise ClientError(f"{file} has no 'admin' section, so its proxy has no control API")
    return Client(admin.endpoint, token or admin.token)


def _token(file: Path | None) -> str | None:
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "")
        where = TOKEN_VARIABLE
    else:
        where = str(file)
        try:
            token = file.read_bytes().decode("latin-1").rstrip("\r\n")
        except OSError as error:
            raise ClientError(f"{file}: {error.strerror}") from error
        if not token:
            raise ClientError(f"{file}: there is no token in it")
    if not all("!" <= character <= "~" for character in token):
        raise ClientError(f"{where}: not a token: it must be visible ASCII characters without spaces")
    return token or None


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        url = urlsplit(address)
        if url.hostname and url.path in ("", "/") and not url.query and not url.fragment and url.username is None:
            return url.hostname, url.port or 80
    except ValueError:
        pass
    raise ClientError(f"{address!r} is not an address such as {DEFAULT_ADDRESS}")
