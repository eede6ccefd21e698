"""What a server is told when it starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gpt_neox_japanese.checks import check_integer, check_number, short_repr
from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.inference.scheduler import MAX_WAITING

__all__ = ["ServerSettings"]

_HOST = r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
_ASCII = "with xn-- for what is not ASCII"


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server listens, and what it bears.

    Attributes:
        model_name: What clients call the model.
        host: Where it listens: a name or an address.
        port: 0 for any free one.
        api_key: What clients must send; None for no key.
        allowed_hosts: Names by which it may be addressed, at any port, beside addresses and
            localhost; "*" for any. A page that makes its own name lead here (DNS rebinding) has
            another one.
        allowed_origins: Other web pages' origins that may use it; "*" for any.
        max_queue: Texts that may wait while all slots are taken.
        max_body_bytes: Of one request.
        request_timeout: Seconds from where a request's texts are in the queue to their last token;
            and so many for its body to come.
        write_timeout: Seconds that a client may leave what is sent unread.
        keep_alive_interval: Seconds of silence in a stream after which a comment is sent.
        shutdown_grace: Seconds that open requests have when the server is asked to stop.

    Raises:
        ArgumentError: One of them is out of range.
    """

    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_queue: int = 256
    max_body_bytes: int = 4 << 20
    request_timeout: float = 600.0
    write_timeout: float = 30.0
    keep_alive_interval: float = 15.0
    shutdown_grace: float = 4.0

    def __post_init__(self) -> None:
        check_integer("port", self.port, ArgumentError, minimum=0, maximum=65535)
        check_integer("max_queue", self.max_queue, ArgumentError, minimum=0, maximum=MAX_WAITING)
        check_integer("max_body_bytes", self.max_body_bytes, ArgumentError, minimum=1)
        names = ("request_timeout", "write_timeout", "keep_alive_interval", "shutdown_grace")
        for name in names:
            check_number(
                name, getattr(self, name), ArgumentError, lambda x: 0 < x < 1e9, "above 0, finite"
            )
        if self.api_key is not None:
            _check_key(self.api_key)
        hosts = tuple(map(_host, self.allowed_hosts))
        object.__setattr__(self, "allowed_hosts", hosts)
        origins = tuple(map(_origin, self.allowed_origins))
        object.__setattr__(self, "allowed_origins", origins)


def _check_key(key: str) -> None:
    """Refuse a key with which nobody would get in, and one that everybody has."""
    if not key.strip():
        raise ArgumentError(
            "the API key (--api-key, NEOX_JA_API_KEY) is empty; give one, or neither of the two"
        )
    if key != key.strip():
        raise ArgumentError("the API key begins or ends with a space or a line's end; leave it out")
    if not (key.isascii() and key.isprintable()):
        raise ArgumentError("the API key has characters that no header can carry; use ASCII")


def _host(text: str) -> str:
    """A host as requests name it: an IPv6 address in brackets."""
    host = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    if host != "*" and not re.fullmatch(_HOST, host, re.IGNORECASE):
        raise ArgumentError(
            f"the host {short_repr(text)} is none; write a name as example.org, {_ASCII}, or *"
        )
    return host


def _origin(text: str) -> str:
    """An origin as browsers write it: in small letters, without the port that its scheme has."""
    if text == "*":
        return text
    origin = text.lower()
    if not re.fullmatch(f"[a-z][a-z0-9+.-]*://{_HOST}", origin):
        raise ArgumentError(
            f"the origin {short_repr(text)} is none; write it as https://example.org, {_ASCII}, or"
            " *"
        )
    scheme = origin.partition(":")[0]
    return origin.removesuffix({"http": ":80", "https": ":443"}.get(scheme, ""))
