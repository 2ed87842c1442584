"""Training with Q-maps: a loss module, many small models at once, and a small transformer to try a method on.

Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qunify._lib.exports import exported

if TYPE_CHECKING:
    from qunify.training._fine_tuning import FineTuningTask as FineTuningTask
    from qunify.training._fine_tuning import fine_tune as fine_tune
    from qunify.training._fine_tuning import mean_per_sequence as mean_per_sequence
    from qunify.training._fine_tuning import shuffled_batches as shuffled_batches
    from qunify.training._fine_tuning import weights_and_mask as weights_and_mask
    from qunify.training._transformer import SmallTransformer as SmallTransformer
    from qunify.training._transformer import TransformerSize as TransformerSize
    from qunify.training._transformer import pack_documents as pack_documents
    from qunify.training._transformer import pretrain as pretrain
    from qunify.training.loss import Loss as Loss
    from qunify.training.many import Data as Data
    from qunify.training.many import Job as Job
    from qunify.training.many import Stack as Stack
    from qunify.training.networks import Linear as Linear
    from qunify.training.networks import Network as Network
    from qunify.training.networks import Tabular as Tabular
    from qunify.training.networks import TwoLayer as TwoLayer
    from qunify.training.sweeps import sweep as sweep
else:
    __getattr__, __dir__ = exported(__name__)
