"""The embedded Triton: a real `tritonserver` as a child process, on loopback only.

with EmbeddedTriton(environment, repository, log_file=log) as server:
with TritonClient(server.endpoint) as client:
client.load("topics-teacher-fp32")
"""

from __future__ import annotations

import errno
import http.client
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from harness.errors import ServerError
from harness.serving.embedded.environment import ServerEnvironment
from harness.serving.embedded.server_process import ServerProcess, isolated_environment
from harness.serving.endpoint import Endpoint
from harness.system.storage import storage_errors
from harness.words.numbers import asked

Ports = tuple[int, int, int]
"""Ports for HTTP, gRPC and metrics."""

START_TIMEOUT_S = 120.0
"""Start to READY takes 2 s on an idle machine."""
EXIT_TIMEOUT_S = 5
"""What Triton gives requests in flight when it is told to end."""

_HOST = "127.0.0.1"
_POLL_INTERVAL_S = 0.05
_PORT_ATTEMPTS = 5
_PORT_TAKEN = ("already in use", "failed to start")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (where POSIX shared memory lies, not a temporary file)
_GPU_DEVICE = Path("/dev/nvidiactl")


class EmbeddedTriton:
    """A context manager: started and ready inside, ended with everything it made outside."""

    endpoint: Endpoint

    def __init__(
        self,
        environment: ServerEnvironment,
        repository: Path,
        *,
        log_file: Path,
        cpus: Sequence[int] | None = None,
        response_cache_bytes: int = 0,
        ports: Ports | None = None,
    ) -> None:
        """Prepare; nothing runs before the `with`.

        Args:
            environment: Of `ensure_server_environment`.
            repository: The model repository; models are loaded by request only.
            log_file: Gets the server's and its models' output, appended.
            cpus: Processors that the server and its models may use; all by default.
            response_cache_bytes: Size of Triton's response cache; 0 leaves it off.
            ports: HTTP, gRPC and metrics; three free ones by default.
        """
        self._environment = environment
        self._repository = repository
        self._log_file = log_file
        self._cpus = cpus
        self._response_cache_bytes = response_cache_bytes
        self._ports = ports
        self._shared_memory_prefix = f"harness_{secrets.token_hex(6)}_"
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """Id of the `tritonserver` process; its children are the models' Python processes.

        Raises:
            ServerError: the server is not started.
        """
        return self._started().pid

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def check(self) -> None:
        """Make sure that the server still runs.

        Raises:
            ServerError: it died; with how it ended and the log's last lines.
        """
        status = self._started().exit_status()
        if status is not None:
            memory = "the kernel does that when memory is short (dmesg tells); " * (
                "KILL" in status
            )
            raise ServerError(
                f"Triton ended {status}; its log's last lines:\n{self._started().last_log_lines()}",
                next_step=f"{memory}the whole log: {self._log_file}",
            )

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("the embedded Triton is not started", next_step="enter its context")
        return self._process

    def _start(self) -> None:
        if not self._repository.is_dir():
            raise ServerError(
                f"there is no model repository {self._repository}", next_step="harness export STUDY"
            )
        with storage_errors(self._log_file):
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
        if self._ports is not None:
            require_free(self._ports)
            self._launch(self._ports)
            return
        # Between choosing a free port and Triton's taking it, another program may have been faster.
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            try:
                self._launch(_free_ports())
            except ServerError as error:
                taken = any(sign in str(error) for sign in _PORT_TAKEN)
                if not taken or attempt == _PORT_ATTEMPTS:
                    raise
                self._stop()
            else:
                return

    def _launch(self, ports: Ports) -> None:
        http_port, grpc_port, metrics_port = ports
        self.endpoint = Endpoint(
            http=f"{_HOST}:{http_port}",
            grpc=f"{_HOST}:{grpc_port}",
            metrics=f"http://{_HOST}:{metrics_port}/metrics",
        )
        python = self._environment.python
        self._process = ServerProcess(
            self._command(ports),
            python=python,
            environment=isolated_environment(python, self._environment.library_path),
            log_file=self._log_file,
            cpus=self._cpus,
        )
        self._wait_until_ready(ports)

    def _command(self, ports: Ports) -> list[str]:
        http_port, grpc_port, metrics_port = ports
        prefix = f"shm-region-prefix-name={self._shared_memory_prefix}"
        command = [
            str(self._environment.tritonserver),
            f"--model-repository={self._repository.resolve()}",
            f"--backend-directory={self._environment.backends}",
            f"--backend-config=python,{prefix}",
            f"--backend-config=onnxruntime,{prefix}",
            "--model-control-mode=explicit",
            # A repository that only works because the server guessed is not the one we measured.
            "--disable-auto-complete-config",
            f"--allow-gpu-metrics={str(_GPU_DEVICE.exists()).lower()}",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--http-address={_HOST}",
            f"--http-port={http_port}",
            f"--grpc-address={_HOST}",
            f"--grpc-port={grpc_port}",
            f"--metrics-address={_HOST}",
            f"--metrics-port={metrics_port}",
        ]
        if self._response_cache_bytes:
            command += [
                f"--cache-config=local,size={self._response_cache_bytes}",
                f"--cache-directory={self._environment.caches}",
            ]
        return command

    def _wait_until_ready(self, ports: Ports) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (_holds(self.pid, ports) and _is_ready(ports[0])):
            self.check()
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Triton was not ready after {asked(START_TIMEOUT_S)} s; its log's last "
                    f"lines:\n{self._started().last_log_lines()}",
                    next_step=f"the whole log: {self._log_file}",
                )
            time.sleep(_POLL_INTERVAL_S)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop(grace_s=2 * EXIT_TIMEOUT_S)
        # Triton removes its shared memory when it ends in order; a killed one leaves it.
        for region in _SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            region.unlink(missing_ok=True)


def _holds(pid: int, ports: Ports) -> bool:
    """Whether the process listens on them all: another program's server may answer on one."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return listening.issuperset(ports)


def _is_ready(http_port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, http_port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_ports() -> Ports:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for listener in sockets:
            listener.bind((_HOST, 0))
        http_port, grpc_port, metrics_port = (listener.getsockname()[1] for listener in sockets)
    return http_port, grpc_port, metrics_port


def require_free(ports: Sequence[int], host: str = _HOST) -> None:
    """Make sure that nobody listens on the ports that a server is to have.

    Args:
        ports: of TCP.
        host: the address that it is to listen on.

    Raises:
        ServerError: somebody does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        with socket.socket(family) as probe:
            # As servers do: a port whose last connection is still winding down is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise ServerError(
                        f"cannot listen on {host}:{port}: {error.strerror}",
                        next_step="name an address of this machine, or leave it out",
                    ) from error
                raise ServerError(
                    f"port {port} of {host} is in use",
                    next_step="end the program that holds it (ss -ltnp shows which), or choose "
                    "other ports",
                ) from error
