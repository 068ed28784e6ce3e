"""What happens between two steps of a worker or its master; in a process that Locust has patched.

Each script brings about one order of events that hardly ever occurs by itself.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import harness_locust.patched
from types import SimpleNamespace as Made
import gevent
from gevent.event import Event
"""
A_LATE_FIRST_ANSWER = """
import time
from harness.load.generators.notices import GREETINGS, Greeting, Joined
from harness_locust import hub

hub.FIRST_QUESTIONS_WITHIN_S = hub.LATE_ANSWER_EVERY_S = 0.01
takers, told, asked = {}, [], []
runner = Made(
    register_message=takers.__setitem__,
    send_message=lambda kind, data, key: asked.append(data),
    server=Made(),
)
load_hub = hub.LoadHub(runner, Made(told=told.append))
greeting = GREETINGS.dump_json(Greeting("host", 1, 1, "1.0", "elsewhere"))
takers["harness_greeting"](Made(node_id="worker", data={"greeting": greeting}))
gevent.sleep(0.1)
assert not told
load_hub._lose("worker", "nothing was heard of it")
gevent.sleep(0.1)
assert not told  # nobody has been told that it is there
shown = {"asked_ns": asked[0]["asked_ns"], "shown_ns": time.monotonic_ns()}
takers["harness_clock"](Made(node_id="worker", data=shown))
with gevent.Timeout(60.0):
    while not any(isinstance(one, Joined) for one in told):
        gevent.sleep(0.01)
"""
A_LOAD_PREPARED_WHILE_THE_LAST_ONE_ENDS = """
import tempfile
from pathlib import Path
from harness_locust.hub_worker import HubWorker


def records():
    path = Path(tempfile.mkdtemp()) / "records.parquet"
    path.touch()
    return path


class Part:
    def end(self):
        worker._part, worker._scratch, worker._offered_records = new


worker = HubWorker.__new__(HubWorker)
old, fresh = records(), records()
new = object(), fresh, object()
worker._part, worker._scratch, worker._offered_records = Part(), old, object()
worker._end_part()
assert not old.exists() and not old.parent.exists()
assert fresh.exists()
assert (worker._part, worker._scratch, worker._offered_records) == new
"""
AN_ORDER_WHILE_ANOTHER_MASTER_IS_TRIED = """
import time
from harness_locust.worker_process import WorkerProcess


class Client:
    heard_ns = time.monotonic_ns() + 10**15
    closed = False

    def close(self, linger):
        self.closed = True
        present.disconnected.set()


present, preferred = Client(), Client()
present.disconnected = Made(wait=lambda longest_s: preferred.closed)
present.disconnected.set = lambda: None
worker = Made(idle=True)


def knock(endpoints):
    worker.idle = False
    return preferred, "preferred"


process = WorkerProcess(["preferred", "present"], b"", None)
process._first_of = knock
process._serve(present, "present", Made(greenlet=True), worker)
assert preferred.closed
assert process._found is None
"""
AN_ORDER_IS_NO_IDLENESS = """
from gevent.queue import Queue
from harness_locust.hub_worker import HubWorker

worker = HubWorker.__new__(HubWorker)
worker._part, worker._orders, worker._obeys = None, Queue(), False
may_end, ended = Event(), Event()


def fetch_files(load, data):
    may_end.wait()
    ended.set()


worker._do = fetch_files
assert worker.idle
worker._orders.put({"load": "a"})
assert not worker.idle
obeying = gevent.spawn(worker._obey)
gevent.sleep(0)
assert worker._orders.empty() and not worker.idle
may_end.set()
assert ended.wait(60.0)
gevent.sleep(0)
assert worker.idle
"""
WORKERS = """
from harness.load.generators.messages import ANSWERS, LoadEnded, Ready
from harness_locust import fleets

given = []
fleet = fleets.WorkerFleet.__new__(fleets.WorkerFleet)
fleet._runner = Made(get_worker_index=lambda key: 0, clients={})
fleet._hub = Made(workers={}, give=lambda key, *order: given.append(key), dismiss=given.append)
fleet._conductor = Made(results=Made(worker=lambda name: Made()))
fleet._plan, fleet._test, fleet._start_ns, fleet._ends = object(), "test", 1, False
fleet._participants = {"one_1": fleets._Participant(late=True)}
"""
ONE_THAT_HAS_LEFT_WHILE_THE_OTHERS_PREPARED = (
    WORKERS
    + """
fleet._let_begin("one_1", fleet._plan, fleet._conductor.results)
assert given == []
assert fleet._participants["one_1"].clock is None
"""
)
ONE_THAT_IS_READY_WHEN_THE_TEST_ENDS = (
    WORKERS
    + """
import time

begun = []
fleet._let_begin = lambda *arguments: begun.append(arguments)
fleet.answered("one_1", "test", ANSWERS.dump_json(Ready()))
assert len(begun) == 1
fleets.drain_s = lambda *_: 60.0
fleet._plan = Made(workload=None, request_timeout_s=1.0)
fleet._note_end = lambda key: None
fleet._is_given_up = lambda key: False


def answers():
    fleet.answered("one_1", "test", ANSWERS.dump_json(Ready()))
    fleet.answered("one_1", "test", ANSWERS.dump_json(LoadEnded("test")))


gevent.spawn(answers)
fleet.drain(time.monotonic_ns())
assert len(begun) == 1
"""
)
STOP_WHILE_THEY_PREPARE = (
    WORKERS
    + """
fleets.prepare_order = lambda *_: Made()
fleet._active = lambda: ["one_1"]
fleet._has_joined = lambda key: True
fleet._prepare = lambda *_: None
fleet._unready = lambda: ["one_1"]
fleet._folder = Made(name="folder")
dismissed = []
fleet._hub.dismiss = lambda *named: dismissed.append(named)
starting = gevent.spawn(fleet.start, fleet._conductor, object(), Made(test="test"))
gevent.sleep(0.05)
starting.kill()
assert dismissed == [("one_1", "test")]
assert fleet._plan is None and fleet._test == ""
"""
)
THE_TIMER_OF_THE_TEST_BEFORE = """
from argparse import Namespace
from flask import Flask
from harness_locust.web_page import _check_form

ended = []
conductor = Made(
    running=False,
    prepare=lambda options, host: ended.append("prepared"),
    options=Namespace(),
    environment=Made(
        host="",
        shape_class=object(),
        web_ui=Made(_cancel_run_time_timer=lambda: ended.append("timer")),
    ),
)
with Flask("page").test_request_context("/swarm", method="POST"):
    assert _check_form(conductor) is None
assert ended == ["prepared", "timer"]
"""
USERS_OF_A_TEST_THAT_NEVER_BEGAN = """
from harness.errors import UsageError
from harness_locust.conductor import Conductor


def start(*_):
    raise why


for why in (gevent.GreenletExit(), UsageError("no")):
    conductor = Conductor.__new__(Conductor)
    conductor.environment = Made(
        runner=Made(_users_dispatcher=object(), log_exception=lambda *_: None, stop=lambda: None),
        parsed_options=Made(headless=False),
    )
    conductor.watchers, conductor._finishing, conductor._next = [], None, object()
    conductor._fleet = Made(start=start)
    try:
        conductor._on_test_start()
    except gevent.GreenletExit:
        assert conductor.results is None
        assert conductor.environment.runner._users_dispatcher is None
    else:
        raise AssertionError(why)
"""
AN_ORDER_THAT_WAITS_IS_DISMISSED = """
from gevent.queue import Queue
from harness_locust.hub_worker import HubWorker

worker = HubWorker.__new__(HubWorker)
worker._load, worker._orders = "before", Queue()
for load in ("a", "b"):
    worker._orders.put({"load": load})
worker._on_dismiss({"load": "a"})
assert worker._orders.get_nowait() == {"load": "b"}
assert worker._orders.empty()
"""
ONE_THAT_IS_ALWAYS_LATE = """
import time
from harness_locust import hub_worker

slept = []
now_s = [0.0]
hub_worker.time = Made(monotonic=lambda: now_s[0])


def sleep(seconds):
    slept.append(seconds)
    now_s[0] += 1.0


hub_worker.gevent = Made(sleep=sleep)
hub_worker.HubWorker._catch_up(None)
assert len(slept) == hub_worker.MOST_LOOKS
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(A_LATE_FIRST_ANSWER, id="a clock's first answer comes late"),
        pytest.param(A_LOAD_PREPARED_WHILE_THE_LAST_ONE_ENDS, id="the next load is prepared"),
        pytest.param(AN_ORDER_WHILE_ANOTHER_MASTER_IS_TRIED, id="an order comes"),
        pytest.param(AN_ORDER_IS_NO_IDLENESS, id="files for an order come"),
        pytest.param(ONE_THAT_HAS_LEFT_WHILE_THE_OTHERS_PREPARED, id="a worker leaves"),
        pytest.param(ONE_THAT_IS_READY_WHEN_THE_TEST_ENDS, id="a worker is ready too late"),
        pytest.param(STOP_WHILE_THEY_PREPARE, id="somebody stops what is not begun"),
        pytest.param(USERS_OF_A_TEST_THAT_NEVER_BEGAN, id="the next test has other users"),
        pytest.param(AN_ORDER_THAT_WAITS_IS_DISMISSED, id="an order waits, and its load ends"),
        pytest.param(ONE_THAT_IS_ALWAYS_LATE, id="one that is late however often it looks"),
        pytest.param(THE_TIMER_OF_THE_TEST_BEFORE, id="a test starts before its time was over"),
    ],
)
def test_what_happens_meanwhile_is_seen(script: str) -> None:
    subprocess.run([sys.executable, "-c", BEGIN + script], timeout=120, check=True)
