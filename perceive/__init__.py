"""perceive: sensors -> situated tokens -> one trunk -> task results, for robots."""

from perceive.batch import Batch, collate
from perceive.model import PerceptionModel
from perceive.tokens import Tokens

__all__ = ["Batch", "PerceptionModel", "Tokens", "collate"]
