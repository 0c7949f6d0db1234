"""Tokens that clients must know to purge or to call the control API; given in the file or in one beside it."""

from __future__ import annotations

import re
import stat
from typing import Any, NoReturn

from yaml.nodes import ScalarNode

from twisted_wasmproxy.config.reader import Key, Place
from twisted_wasmproxy.config.values import existing_file

__all__ = ["TOKEN_KEYS", "take_token"]

MOST = 1024
"""Characters of a token."""
ENOUGH = 16
"""Characters below which a token is warned of."""

_TOKEN = re.compile(r"[!-~]{1,1024}")


def _token(place: Place) -> str:
    node = place.node
    if not isinstance(node, ScalarNode):
        place.expected("text")
    return _checked(place, str(node.value))


def _token_file(place: Place) -> str:
    path = existing_file(place)
    try:
        if path.stat().st_mode & stat.S_IROTH:
            place.warn(f"{path} can be read by all users of this machine; better make it 0600")
        with path.open("rb") as file:
            content = file.read(MOST + 2)
    except OSError as error:
        place.reject(f"cannot be read: {path}: {error.strerror}")
    return _checked(place, content.decode("latin-1").rstrip("\r\n"))


def _checked(place: Place, value: str) -> str:
    if not _TOKEN.fullmatch(value):
        _reject(place)
    if len(value) < ENOUGH:
        place.warn(f"a token of less than {ENOUGH} characters can be guessed")
    return value


def _reject(place: Place) -> NoReturn:
    place.reject(f"must be 1 to {MOST} visible ASCII characters without spaces")  # and not what it is: it is secret


TOKEN_KEYS = {"token": Key(_token), "token_file": Key(_token_file)}
"""For the `Record` of what a token is for."""


def take_token(values: dict[str, Any], place: Place) -> str | None:
    """Take what these keys have given out of `values`, and return the token. May reject."""
    if "token" in values and "token_file" in values:
        place.at("token_file").reject("the token is given by 'token' already")
    for name in ("token", "token_file"):
        if name in values:
            token: str = values.pop(name)
            return token
    return None
