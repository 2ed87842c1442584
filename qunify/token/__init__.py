"""What a method sees of one token: one language, and the backends it runs on.

Tensors train and analyse, symbols prove, decimals judge to fifty digits, scripts draw in a browser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.token._base import (
        CONTEXTS,
        PER_TOKEN,
        SHARED,
        Distribution,
        Scalar,
        Symbolic,
        Token,
        Vector,
        is_symbolic,
    )
    from qunify.token._decimals import DIGITS, EXACT, DecimalToken, Number, decimal, decimals
    from qunify.token._pools import Pool, Pooling, entropy, probability, surprise
    from qunify.token._projections import raised, sort
    from qunify.token._reading import SEQUENCES, Layout, as_tensor, checked_logits, checked_number, pooling_of, read
    from qunify.token._scripts import MOST_TERMS, Branch, Node, ScriptToken, Trace
    from qunify.token._symbols import (
        LSE,
        SOFTMAX,
        SYMBOLS,
        Prediction,
        SumOverOthers,
        SymbolicToken,
        SymbolicVector,
        V,
        at_label,
        evaluate,
        expanded,
        indicator,
        is_mask,
        per_token,
        rational,
        renamed,
        sg,
        sum_over_others,
        varies,
    )
    from qunify.token._tensors import ELEMENTWISE, Rows, TensorToken, blocks
else:
    __getattr__, __dir__ = exported(__name__)
