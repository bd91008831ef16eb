"""What several families use: embeddings, MLPs, the click-model base, the optimiser."""

from .click import ClickModel
from .embedding import FeatureEmbedding
from .mlp import MLP, linear
from .optim import RowAdam

__all__ = ["MLP", "ClickModel", "FeatureEmbedding", "RowAdam", "linear"]
