"""Addresses of servers, as people write them."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.load.transports.address import Target, parse_target


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8000", Target("127.0.0.1", 8000)),
        ("http://triton:8000/", Target("triton", 8000)),
        ("grpc://[::1]:8001", Target("::1", 8001)),
        ("https://triton", Target("triton", 443, encrypted=True)),
        ("https://triton:8443", Target("triton", 8443, encrypted=True)),
        ("grpcs://triton:8001", Target("triton", 8001, encrypted=True)),
    ],
)
def test_addresses(address: str, expected: Target) -> None:
    assert parse_target(address) == expected


@pytest.mark.parametrize(("host", "authority"), [("triton", "triton:8000"), ("::1", "[::1]:8000")])
def test_the_authority_brackets_ipv6(host: str, authority: str) -> None:
    assert Target(host, 8000).authority == authority


@pytest.mark.parametrize(
    "address",
    [
        "", "triton", ":8000", "a:b", "h:99999", "ftp://h:1", "http://h:1/v2", "http://h:1?x=1",
        "grpcs://h", "[::1", "http://", "日本:80", "a..b:80",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is not a server address"):
        parse_target(address)


@pytest.mark.parametrize("address", ["http://me:secret@h:1", "me:secret@h:1", "https://secret@h"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match="holds a name or a password") as refused:
        parse_target(address)
    assert "secret" not in str(refused.value)
    assert "--header" in str(refused.value.next_step)


def test_headers_are_kept() -> None:
    headers = (("Authorization", "Bearer a.b"), ("x-tenant", "grün"))
    assert parse_target("h:1", headers=headers).headers == headers


@pytest.mark.parametrize(
    "header",
    [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\nEvil: 1"), ("a", "\0"), ("a", "日本")],
)
def test_a_header_that_cannot_be_sent_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="is not a header"):
        parse_target("h:1", headers=(header,))


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Connection"])
def test_a_header_that_would_break_the_framing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is set by the load generator"):
        parse_target("h:1", headers=((name, "1"),))


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        target = parse_target("https://h", ca_file=file)
        with pytest.raises(UsageError, match=rf"{file.name}: no usable certificates"):
            target.tls_context("h2")


def test_verification_is_on_unless_it_is_switched_off() -> None:
    assert parse_target("https://h").tls_context("h2").verify_mode is ssl.CERT_REQUIRED
    unverified = parse_target("https://h", verify=False).tls_context("h2")
    assert unverified.verify_mode is ssl.CERT_NONE
