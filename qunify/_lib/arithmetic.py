"""Python's operators for objects that stand for numbers: traced expressions, and vectors of symbols."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any


class Arithmetic:
    """Every operator is one call of `_operation`: `2 - x` is `x._operation("-", 2, x)`, and abs(x) `("abs", x)`."""

    __slots__ = ()

    @abstractmethod
    def _operation(self, name: str, *operands: Any) -> Any:
        """The result of an operator; at least one of the operands is of this class."""

    def __add__(self, other: Any) -> Any:
        return self._operation("+", self, other)

    def __sub__(self, other: Any) -> Any:
        return self._operation("-", self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._operation("-", other, self)

    def __mul__(self, other: Any) -> Any:
        return self._operation("*", self, other)

    def __truediv__(self, other: Any) -> Any:
        return self._operation("/", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._operation("/", other, self)

    def __pow__(self, other: Any) -> Any:
        return self._operation("**", self, other)

    def __neg__(self) -> Any:
        return self._operation("-", 0, self)

    def __abs__(self) -> Any:
        return self._operation("abs", self)

    def __gt__(self, other: Any) -> Any:
        return self._operation(">", self, other)

    def __lt__(self, other: Any) -> Any:
        return self._operation("<", self, other)

    __radd__, __rmul__ = __add__, __mul__
