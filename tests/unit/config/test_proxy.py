"""ingestor.config.proxy: what no library could use is refused, and nothing of it is repeated."""

from __future__ import annotations

import base64

import pytest

from ingestor.config.proxy import check_proxy, proxy_secrets
from ingestor.telemetry.logs import Redactor

USABLE = [
    "http://proxy",
    "http://127.0.0.1:3128",
    "http://127.0.0.1:3128/",
    "https://user:pass@proxy.example:8443",
    "socks5://user:p%40ss%2Fword@[::1]:1080",
    "socks5h://user_1:p.a~s!s$@proxy.example:1080",
    "http://user:a:b@proxy.example:1",
    "http://%C3%BCser:p%C3%A4ss@proxy.example:1",
]
UNUSABLE = [
    "",
    "canary",
    "gopher://user:canary@127.0.0.1:1",
    "socks4://user:canary@127.0.0.1:1",
    "http://user:canary@",
    "http://user:canary@:3128",
    "http://user:canary@127.0.0.1:99999",
    "http://user:canary@127.0.0.1:0",
    "http://user:canary@127.0.0.1:-1",
    "http://user:canary@127.0.0.1:port",
    "http://user:canary/y@127.0.0.1:1",
    "http://user:canary#y@127.0.0.1:1",
    "http://user:canary?y@127.0.0.1:1",
    "http://user:canary@127.0.0.1:1/path",
    "http://user:canary@127.0.0.1:1?query",
    "http://user:canary@[::1",
    "http://user:canary@[nonsense]:1",
    "http://us er:canary@127.0.0.1:1",
    "http://user:canary\n@127.0.0.1:1",
    "http://canary@127.0.0.1:1",
    "http://:canary@127.0.0.1:1",
    "http://user:@127.0.0.1:1",
    "http://user:canary%@127.0.0.1:1",
    "http://user:canary%zz@127.0.0.1:1",
    "http://user:canary%ff@127.0.0.1:1",
    "http://user:canary%00@127.0.0.1:1",
    "http://us%3Aer:canary@127.0.0.1:1",
    "http://user:ca@nary@127.0.0.1:1",
    "socks5://user:" + "canary" * 50 + "@127.0.0.1:1",
    "socks5://user:canary@proxy.example",
    "http://user:canary@bücher.example:1",
    "http://user:canary@-:1",
]


@pytest.mark.parametrize("url", USABLE)
def test_usable(url: str) -> None:
    assert check_proxy(url) == url


@pytest.mark.parametrize("url", UNUSABLE)
def test_unusable_ones_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        check_proxy(url)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "shown",
    [
        "http://user:can%40ary@127.0.0.1:1",
        "proxy of user with password can@ary",
        "can%40ary",
        "Proxy-Authorization: Basic " + base64.b64encode(b"user:can@ary").decode(),
        base64.b64encode(b"user:can@ary").decode(),
        "refused by http://user:can@ary@127.0.0.1:1/",
    ],
)
def test_each_form_of_a_password_is_starred(shown: str) -> None:
    text = Redactor(proxy_secrets("http://user:can%40ary@127.0.0.1:1")).text(shown)
    for form in ("can%40ary", "can@ary", "ary", base64.b64encode(b"user:can@ary").decode()):
        assert form not in text


def test_an_unusable_url_has_its_secrets_too() -> None:
    assert "can/ary" in set(proxy_secrets("http://user:can/ary@[::1"))
    assert list(proxy_secrets("http://127.0.0.1:1")) == ["http://127.0.0.1:1"]
