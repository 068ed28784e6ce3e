"""The yardstick learns what can be learnt and stays aligned."""

from harness.reference.corpus import predict_baseline

TRAIN = [("tensor shape stride", "math"), ("socket port address", "net")] * 10


def test_predictions_are_class_names_in_the_rows_order():
    texts, labels = zip(*TRAIN, strict=True)
    tests = ["port of the socket", "stride of a tensor", "address", "shape"]
    assert predict_baseline(texts, labels, tests) == ["net", "math", "net", "math"]
