"""What a served variant answers to the first requests of a trial, asked row by row beforehand.

By another client than the one under load and one row at a time: an answer that the load's
transport misreads, or that batching gives to the wrong row, is found while the load runs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.load.known_answers import TOLERANCE, make_known_answers, write_known_answers
from harness.load.payloads import draw_workload, read_payloads
from harness.pipeline.serving import ModelClient
from harness.serving.remote import REMOTE_DIGEST
from harness.types import ModelVariant, Workload

KNOWN_REQUESTS = 4
"""Of a pool of 256: every 64th answer is decoded and compared, which costs under a microsecond a
request."""


def known_answers_file(
    client: ModelClient, variant: ModelVariant, workload: Workload, payloads: Path
) -> Path:
    """The file of known answers beside the payloads, made unless it is there.

    The variant has to be loaded. Serving configurations share the file: they do not change what a
    model says.

    Raises:
        ServerError: the server does not answer.
        DataError: it answers with NaN or infinity.
    """
    drawn_by = (workload.seed, workload.client_batch_size, workload.batch_mix, workload.length_mix)
    draw = hashlib.sha256(repr(drawn_by).encode()).hexdigest()[:8]
    artefact = variant.sha256.removeprefix(REMOTE_DIGEST)[:12]
    name = f"{payloads.stem}-{artefact}-{draw}.answers.npz"
    path = payloads.with_name(name)
    if not path.is_file():
        drawn = draw_workload(read_payloads(payloads), workload)
        answers = make_known_answers(
            drawn[:KNOWN_REQUESTS],
            lambda inputs: client.infer(variant.served_name, inputs),
            variant.outputs,
        )
        write_known_answers(path, answers, TOLERANCE[variant.precision])
    return path
