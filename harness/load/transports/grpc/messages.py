"""KServe v2's `ModelInfer` messages: requests encoded once, answers recognised, not parsed.

https://github.com/kserve/open-inference-protocol, `grpc_predict_v2.proto`. On the wire a message
is a row of fields, and Triton writes those of an answer in the order of their numbers: everything
that describes the outputs first, then each output's raw bytes (field 6) with a tag and a length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from harness.load.transports.contract import (
    MARK,
    Layout,
    OutputTensor,
    RequestFailure,
    check_echo,
    datatype_of,
    layout_of,
    tensor_bytes,
)
from harness.load.transports.recognition import KnownForms

SERVICE = "/inference.GRPCInferenceService"
MODEL_INFER = f"{SERVICE}/ModelInfer"

_RAW_OUTPUT_CONTENTS = 6
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT_BITS = 70


def encode_infer_request(model: str, inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """A serialised `ModelInferRequest`; every array has the batch dimension."""
    request = service_pb2.ModelInferRequest(model_name=model, id=MARK.decode())
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=datatype_of(array), shape=list(array.shape))
        request.raw_input_contents.append(tensor_bytes(array))
    serialised: bytes = request.SerializeToString()
    return serialised


class AnswerForms(KnownForms):
    """The forms of answers seen so far: one that has these bytes can be parsed in one way only.

    What varies from answer to answer beside its request's `id` makes a new form each time: such
    answers are parsed, and come out right too, at a price.

    Args:
        envelope_bytes: what precedes the message in the data: 5 for gRPC's own prefix. It is
            recognised with the rest.
    """

    def __init__(self, *, envelope_bytes: int = 0) -> None:
        super().__init__()
        self._envelope_bytes = envelope_bytes

    def learn(self, data: bytes, identity: bytes = b"") -> Layout:
        """The layout of any answer, parsed; its form is known from then on.

        Args:
            data: the answer.
            identity: its request's id, empty if it had none.

        Raises:
            RequestFailure: `malformed`, when it is no `ModelInferResponse`, or another request's.
        """
        fields = list(_fields(data, self._envelope_bytes))
        raw = [field for field in fields if field.number == _RAW_OUTPUT_CONTENTS]
        described = b"".join(
            data[field.tag : field.end] for field in fields if field.number != _RAW_OUTPUT_CONTENTS
        )
        try:
            message = service_pb2.ModelInferResponse.FromString(described)
        except DecodeError as error:
            raise RequestFailure("malformed", f"no ModelInferResponse: {error}") from error
        check_echo(message.id, identity)
        layout = layout_of(tuple(_outputs(message.outputs, raw)))
        if not raw or fields[-len(raw) :] == raw:
            between = tuple((field.tag, data[field.tag : field.start]) for field in raw[1:])
            self.remember(data, raw[0].start if raw else len(data), layout, identity, between)
        return layout


class _Field(NamedTuple):
    """One field of a message: where its tag, its content, and the next field start."""

    number: int
    tag: int
    start: int
    end: int


def _outputs(described: Sequence[Any], raw: Sequence[_Field]) -> Iterator[OutputTensor]:
    for index, output in enumerate(described):
        start, end = (raw[index].start, raw[index].end) if index < len(raw) else (0, 0)
        yield OutputTensor(output.name, output.datatype, tuple(output.shape), start, end)


def _fields(data: bytes, at: int) -> Iterator[_Field]:
    """Walk the fields of a serialised message that begins at an offset.

    Format: https://protobuf.dev/programming-guides/encoding

    Raises:
        RequestFailure: `malformed`, when it ends in the middle of a field.
    """
    while at < len(data):
        key, start = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            end = _varint(data, start)[1]
        elif kind == _LENGTH_DELIMITED:
            length, start = _varint(data, start)
            end = start + length
        elif kind in _FIXED_BYTES:
            end = start + _FIXED_BYTES[kind]
        else:
            raise RequestFailure("malformed", f"a field of wire type {kind} in the answer")
        if end > len(data):
            raise RequestFailure("malformed", "the answer ends in the middle of a field")
        yield _Field(key >> 3, at, start, end)
        at = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in base 128, least significant digit first; and where it ends."""
    value = 0
    for shift in range(0, _LONGEST_VARINT_BITS, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  (the bit that says whether another digit follows)
            return value, at
    raise RequestFailure("malformed", "the answer holds a number without an end")
