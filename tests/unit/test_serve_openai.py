"""`harness serve --openai`: what is wrong with it is told before anything is exported."""

from __future__ import annotations

import socket

import pytest

from harness.cli.main import run_command
from harness.cli.serve import parse_openai
from harness.errors import EXIT_USAGE, ServerError, UsageError
from harness.serving.embedded.server import require_free
from tests.local_study import write_local_study


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("[::]:8080", ("::", 8080)),
        (None, None),
    ],
)
def test_a_place_is_the_loopback_unless_a_host_is_given(text, place):
    assert parse_openai(text) == place


@pytest.mark.parametrize("text", ["", "http", "0", "65536", "8080:", "-1", "8080,8081", "٣"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(UsageError, match="a port from 1 to 65535 is needed"):
        parse_openai(text)


def test_a_study_whose_models_do_not_write_is_refused(tmp_path, capsys):
    study, repository = write_local_study(tmp_path), tmp_path / "models"
    asked = ["serve", str(study), "--openai", "8080", "--repository", str(repository)]
    assert run_command(asked) == EXIT_USAGE
    assert "no model of the study" in capsys.readouterr().err
    assert not repository.exists()


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_port_that_is_taken_is_told_on_any_host(family, host):
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} of {host} is in use"):
            require_free([port], host)


def test_an_address_of_another_machine_cannot_be_listened_on():
    with pytest.raises(ServerError, match=r"cannot listen on 192\.0\.2\.1:8080"):
        require_free([8080], "192.0.2.1")
