"""URLs of proxies: what is usable, and which parts of one are secret.

The libraries that open connections find a bad URL when they connect, hours after the start in the
case of a replaced connection, and say so with the password in it. So it is checked here, and no
message of this module repeats what was given.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_EXAMPLE: Final = "http://user:password@proxy.example:3128"
# RFC 3986 section 3.2.1: what user and password may have unencoded; colons in a password alone
_USER_INFO: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_USER_BYTES_MAX: Final = 255  # RFC 1929 section 2: of user name and of password


def check_proxy(url: str) -> str:
    """Return the URL of a proxy. Raises ValueError with a text that has no part of it."""
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("must be ASCII without spaces: percent-encode the rest")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"must be such as {_EXAMPLE}: its host or port can't be read") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(
            f"must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    if parts.path.strip("/") or any(mark in url for mark in "?#"):
        raise ValueError("must end after the port: percent-encode /, ? and # of a password")
    if not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError(f"must be such as {_EXAMPLE}: it names no host")
    if port == 0 or (port is None and parts.scheme.startswith("socks")):
        raise ValueError(f"must be such as {_EXAMPLE}: it names no port from 1 to 65535")
    if "@" in parts.netloc:
        _check_user(*parts.netloc.rpartition("@")[0].partition(":")[::2])
    return url


def _check_user(user: str, password: str) -> None:
    if not user or not password:
        raise ValueError("must have both a user and a password, or neither")
    for part in (user, password):
        if not _USER_INFO.fullmatch(part):
            raise ValueError("must have user and password percent-encoded, such as %40 for @")
        try:
            text = unquote(part, errors="strict")
        except UnicodeDecodeError:
            raise ValueError("must have user and password in UTF-8, percent-encoded") from None
        if not text.isprintable() or len(text.encode()) > _USER_BYTES_MAX:
            raise ValueError(
                f"must have user and password of at most {_USER_BYTES_MAX} printable bytes each"
            )
    if ":" in unquote(user):
        raise ValueError("must have no colon in the user's name (RFC 7617 section 2)")


def proxy_secrets(url: str) -> Iterator[str]:
    """Yield each form in which the password of a proxy's URL may show up in a text."""
    yield url
    # Not urlsplit's: it raises for some of the URLs that a message has to be cleaned of.
    user_info = url.partition("://")[2].rpartition("@")[0]
    user, _, password = user_info.partition(":")
    if not password:
        return
    yield user_info
    yield password
    yield unquote(password)
    yield b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
