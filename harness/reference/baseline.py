"""The yardstick of the classification task: TF-IDF with logistic regression, in two seconds."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import MissingExtraError

INVERSE_REGULARISATION = 10.0
MAXIMUM_ITERATIONS = 300


def predict_baseline(
    train_texts: Sequence[str], train_labels: Sequence[str], test_texts: Sequence[str]
) -> list[str]:
    """Predicted class names, aligned with `test_texts`; deterministic (no random solver).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "export") from error
    pipeline = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS),
    )
    pipeline.fit(list(train_texts), list(train_labels))
    return [str(label) for label in pipeline.predict(list(test_texts))]
