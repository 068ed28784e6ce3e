"""What is told at once: ports that are taken, and a run folder that holds something."""

from __future__ import annotations

import socket

import pytest

from harness.cli.main import run_command
from harness.cli.serve import parse_ports
from harness.errors import EXIT_ENVIRONMENT, EXIT_USAGE, UsageError
from tests.local_study import write_local_study

pytest.importorskip("transformers")


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "8000,8001,99999", "0,8001,8002", "80,80,81"])
def test_what_is_no_three_ports_is_refused_by_the_option_s_name(text):
    with pytest.raises(UsageError, match=f"--server-ports {text}: three"):
        parse_ports(text, "--server-ports")


def test_three_ports_are_read():
    assert parse_ports("8000, 8001,8002") == (8000, 8001, 8002)
    assert parse_ports(None) is None


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_port_in_use_is_told_before_anything_is_exported(tmp_path, command, capsys):
    study, repository = write_local_study(tmp_path), tmp_path / "models"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        given = f"{taken},1,2"
        option = "--ports" if command == "serve" else "--server-ports"
        asked = [command, str(study), option, given, "--repository", str(repository)]
        if command != "serve":
            asked += ["--out", str(tmp_path / "run")]
        assert run_command(asked) == EXIT_ENVIRONMENT
    said = capsys.readouterr().err
    assert f"port {taken} of 127.0.0.1 is in use" in said
    assert not repository.exists()


def test_a_folder_that_holds_something_is_told_before_the_inputs_are_read(tmp_path, capsys):
    study = write_local_study(tmp_path)
    (tmp_path / "test.csv").write_text("sentence\nno labels\n")
    assert run_command(["run", str(study), "--out", str(tmp_path)]) == EXIT_USAGE
    assert f"{tmp_path} is not empty" in capsys.readouterr().err
    assert run_command(["run", str(study), "--out", str(tmp_path / "new")]) == EXIT_USAGE
    assert "no column 'kind'" in capsys.readouterr().err
