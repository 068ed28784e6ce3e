"""Where a master listens, and the secret by which its workers join."""

from __future__ import annotations

import socket

import pytest

from harness.errors import UsageError
from harness.load.generators.master_endpoint import (
    TOKEN_VARIABLE,
    MasterEndpoint,
    check_free,
    join_token,
    own_endpoint,
    parse_allowed,
    parse_endpoint,
)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.1:6000", MasterEndpoint("10.0.0.1", 6000)),
        ("harness", MasterEndpoint("harness", 5557)),
        ("locust-master:1", MasterEndpoint("locust-master", 1)),
        ("[::1]:70", MasterEndpoint("::1", 70)),
        ("*", MasterEndpoint("0.0.0.0", 5557)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, endpoint: MasterEndpoint) -> None:
    assert parse_endpoint(text, "--join") == endpoint
    assert parse_endpoint(str(endpoint), "--join") == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":5557", "a b", "host:0", "host:65536", "host:x", "tcp://host:1", "::1", "ipc:///x"],
)
def test_what_is_no_address_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--join") as caught:
        parse_endpoint(text, "--join")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_the_processes_of_one_machine_need_no_token(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert join_token([MasterEndpoint(host, 1), own_endpoint()]) == b""
    monkeypatch.setenv(TOKEN_VARIABLE, "one")
    assert join_token([MasterEndpoint(host, 1)]) == b"one"


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "host-a"])
def test_other_machines_need_one_of_some_length(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = MasterEndpoint(host, 5557)
    for token in (None, "short"):
        if token is None:
            monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
        else:
            monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(UsageError, match=TOKEN_VARIABLE) as caught:
            join_token([endpoint])
        assert "short" not in str(caught.value).replace("shorter", "")
    monkeypatch.setenv(TOKEN_VARIABLE, "long enough")
    assert join_token([endpoint]) == b"long enough"


def test_an_address_where_somebody_listens_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}: Address already in use"):
            check_free(MasterEndpoint("127.0.0.1", port))
    check_free(MasterEndpoint("127.0.0.1", port))
    with pytest.raises(UsageError, match=r"--listen 203\.0\.113\.1:5557"):
        check_free(MasterEndpoint("203.0.113.1", 5557))


def test_allowed_addresses() -> None:
    assert parse_allowed("triton") == ("triton", None)
    assert parse_allowed("10.0.0.1:8000") == ("10.0.0.1", 8000)
    assert parse_allowed("[::1]:8000") == ("::1", 8000)
    for text in ("", ":1", "a:b", "http://a"):
        with pytest.raises(UsageError, match="--allow"):
            parse_allowed(text)
