"""The bare side of `server_overhead`: `InferenceSession.run` and nothing else.

Runs in the embedded server's environment, so that it is the same ONNX Runtime and numpy; imports
nothing of the harness. Usage: `bare_session.py MODEL INPUTS.npz THREADS`; each line on standard
input is a number of seconds, each line of output the runs a second over that time.
"""

import sys
import time

import numpy as np
import onnxruntime as ort

_WARM_UP_RUNS = 10


def main() -> None:
    """Measure once for each line of standard input."""
    model, inputs_file, threads = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = dict(np.load(inputs_file))
    for line in sys.stdin:
        for _ in range(_WARM_UP_RUNS):
            session.run(None, inputs)
        print(_runs_per_s(session, inputs, float(line)), flush=True)


def _runs_per_s(session: ort.InferenceSession, inputs: dict[str, object], seconds: float) -> float:
    start = time.perf_counter()
    runs = 0
    while (elapsed := time.perf_counter() - start) < seconds:
        session.run(None, inputs)
        runs += 1
    return runs / elapsed


if __name__ == "__main__":
    main()
