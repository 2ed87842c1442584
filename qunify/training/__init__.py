"""Training with Q-maps: a loss module, many small models at once, and a small transformer to try a method on.

Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.training._fine_tuning import (
        FineTuningTask,
        fine_tune,
        mean_per_sequence,
        shuffled_batches,
        weights_and_mask,
    )
    from qunify.training._fused import KEYWORDS, TopK, linear_loss, logits_of
    from qunify.training._module import Loss, loss
    from qunify.training._networks import Linear, Network, Parameters, Tabular, TwoLayer
    from qunify.training._stacks import Data, Job, Stack
    from qunify.training._sweeps import sweep
    from qunify.training._transformer import SmallTransformer, TransformerSize, pack_documents, pretrain
else:
    __getattr__, __dir__ = exported(__name__)
