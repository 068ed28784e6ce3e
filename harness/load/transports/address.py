"""Where a server is and how to speak to it: address, encryption, headers."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from harness.errors import UsageError

PLAIN_SCHEMES = ("", "http", "grpc")
ENCRYPTED_SCHEMES = ("https", "grpcs")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110, 5.6.2
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PATH_SIGNS = "/%:@!$&'()*+,;=~"  # RFC 3986, 3.3; what is escaped already stays so
_FRAMING = {
    "connection",
    "content-length",
    "inference-header-content-length",
    "te",
    "transfer-encoding",
}
"""Headers that the transport alone can know."""


@dataclass(frozen=True)
class Target:
    """A server as a transport needs to know it; plain data, so that it can be sent to a worker."""

    host: str
    port: int
    encrypted: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    """HTTP headers or gRPC metadata sent with every request, for example an authorization."""
    ca_file: Path | None = None
    """Certificates to trust, in PEM; None trusts the system's."""
    verify: bool = True
    """False accepts any certificate."""
    prefix: str = ""
    """Prefix of every path over HTTP, such as `/models/one`: where a gateway keeps the server."""
    binary: bool = True
    """False sends tensors over HTTP as JSON: the server lacks the binary tensor extension."""

    @property
    def authority(self) -> str:
        """HOST:PORT as it stands in a Host header or a gRPC target; brackets for IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def tls_context(self, alpn: str) -> ssl.SSLContext:
        """Client-side TLS that offers one application protocol (`http/1.1`, `h2`).

        Raises:
            UsageError: the certificates cannot be read.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(f"{self.ca_file}: no usable certificates: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        return context


def parse_target(
    address: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    ca_file: Path | None = None,
    verify: bool = True,
) -> Target:
    """Parse `127.0.0.1:8000`, `http://host:8000/prefix`, `https://host`, `grpc://[::1]:8001`.

    Raises:
        UsageError: no host, no port where the scheme has no usual one, an unknown scheme, more
            than a host, a port and over HTTP a path (a password, for one), or a header that cannot
            be sent.
    """
    _check_headers(headers)
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as name resolution will, which would not say it as well
    except ValueError as error:
        raise UsageError(f"'{address}' is not a server address: {error}") from error
    if parts.username is not None:  # not repeated: there may be a password in it
        raise UsageError(
            f"the address of {host} holds a name or a password, which is not sent",
            next_step="send it as a header: --header 'Authorization: Basic ...'",
        )
    if parts.scheme == "https" and port is None:
        port = 443
    known = parts.scheme in PLAIN_SCHEMES + ENCRYPTED_SCHEMES
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v2"):
        raise UsageError(
            f"'{address}' is not a server address: /v2 is added to it",
            next_step=f"write {address[: address.rindex('/v2')]}",
        )
    surplus = parts.query or parts.fragment
    if prefix and parts.scheme in {"grpc", "grpcs"}:
        raise UsageError(
            f"'{address}' has a path, and gRPC knows none",
            next_step="leave the path out, or use http://HOST:PORT/PATH",
        )
    if not known or not host or not host.isascii() or port is None or surplus:
        raise UsageError(
            f"'{address}' is not a server address that the load generator can use",
            next_step="write it as HOST:PORT, http://HOST:PORT[/PREFIX], grpc://HOST:PORT, or "
            "https/grpcs",
        )
    encrypted = parts.scheme in ENCRYPTED_SCHEMES
    path = quote(prefix, safe=_PATH_SIGNS)
    return Target(host, port, encrypted, headers, ca_file, verify, prefix=path)


def _check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise UsageError(
                f"'{name}: {value}' is not a header",
                next_step="write it as NAME: VALUE, in one line",
            )
        if name.lower() in _FRAMING:
            raise UsageError(
                f"the header {name} is set by the load generator itself", next_step="leave it out"
            )
