"""Which connection it was that ended: messages and a connection's end come by different ways."""

from __future__ import annotations

import subprocess
import sys

import pytest
from load_rig import environment

from tests.ports import free_port

TOGETHER = """
import harness_locust.patched

import socket
import sys
import gevent
import zmq
from locust.exception import RPCError
from harness_locust.guarded_sockets import GuardedClient, GuardedServer


port = int(sys.argv[1])


def serve(server):
    while True:
        server.recv_from_client()


def master():
    with gevent.Timeout(60.0):
        while True:
            try:
                server = GuardedServer("127.0.0.1", port, token=b"secret")
            except RPCError:  # ZeroMQ has not closed the last one yet
                gevent.sleep(0.01)
            else:
                gevent.spawn(serve, server)
                return server


def worker():
    return GuardedClient("127.0.0.1", port, "worker", token=b"secret")
"""
ENDED_BEFORE = """
leaving = socket.create_server(("127.0.0.1", port))
client = worker()
connection, _ = leaving.accept()
leaving.close()
connection.close()
server = master()
assert client.enter(60.0)
assert client.connected
assert not client.disconnected.wait(0.2)
server.close(linger=0)
assert client.disconnected.wait(60.0)
"""
ENDED_UNSEEN = """
server = master()
client = worker()
assert client.enter(60.0)
server.close(linger=0)
assert client.disconnected.wait(60.0)
other = master()
with gevent.Timeout(60.0):
    while not client.connected:
        gevent.sleep(0.01)
assert client.disconnected.is_set()  # whoever serves now is another
"""
NUMBER_GIVEN_AGAIN = """
class Monitor:
    def __init__(self, *events):
        self.events = list(events)

    def recv_multipart(self, flags):
        if not self.events:
            raise zmq.Again
        kind, descriptor = self.events.pop(0)
        return [kind.to_bytes(2, "little") + descriptor.to_bytes(4, "little"), b"tcp://here"]


server = GuardedServer("127.0.0.1", port, token=b"secret")
ended = []
server.on_end = ended.append
server._doorkeeper.knows = lambda peer: True
server._watcher.kill()
server._monitor = Monitor()
server._note_speaker(7, "one")
server._monitor = Monitor((zmq.EVENT_DISCONNECTED, 7), (zmq.EVENT_ACCEPTED, 7))
server._note_speaker(7, "other")
assert ended == ["one"], ended
assert server._connections == {7: "other"}
"""
ENDED_BEFORE_IT_WAS_READ = (
    NUMBER_GIVEN_AGAIN
    + """
said = []
server.tell = said.append
server._monitor = Monitor((zmq.EVENT_ACCEPTED, 8), (zmq.EVENT_DISCONNECTED, 8))
server._note_speaker(8, "third")  # its hello was read, and it has given up before
assert said == []
assert server._connections == {7: "other"}
"""
)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(ENDED_BEFORE, id="a connection to a master that was leaving"),
        pytest.param(ENDED_UNSEEN, id="a master in the place of another"),
        pytest.param(NUMBER_GIVEN_AGAIN, id="a descriptor of two workers"),
        pytest.param(ENDED_BEFORE_IT_WAS_READ, id="a worker that is gone when its hello is read"),
    ],
)
def test_the_end_of_one_connection_is_not_taken_for_that_of_another(events: str) -> None:
    """In a process of its own, which Locust may patch."""
    subprocess.run(
        [sys.executable, "-c", TOGETHER + events, str(free_port())],
        env=environment(),
        timeout=240,
        check=True,
    )
