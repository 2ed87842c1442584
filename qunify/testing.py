"""For other people's test suites: `assert_equivalent(my_loss, "dft")`."""

from __future__ import annotations

from qunify.comparison import compare
from qunify.maps import Method


def assert_equivalent(a: Method, b: Method, level: str = "identical", *, alias: dict[str, str] | None = None) -> None:
    """Fail unless two methods, or loss functions, are equivalent at least at this level.

    Parameters
    ----------
    a, b
        An id of the catalogue, a QMap, or a function `(logits, labels, **context)` giving one loss per token.
    level
        `identical`, `scaled`, `directional` or `optimum`.
    alias
        Contexts that count as one, as in `{"teacher_logits": "reference_logits"}`.

    Raises
    ------
    AssertionError
        With the verdict in one sentence, and the token at which the level fails.
    ValueError
        Unknown level.
    """
    verdict = compare(a, b, alias=alias)
    if not verdict.meets(level):
        raise AssertionError(f"expected {level}: {verdict}" + (f" {verdict.witness}" if verdict.witness else ""))
