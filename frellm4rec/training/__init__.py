"""Training: losses, the loop, and trained weights kept by content."""

from frellm4rec.training.losses import full_softmax_loss
from frellm4rec.training.trainer import TrainingConfig, TrainingRecord, train

__all__ = ["TrainingConfig", "TrainingRecord", "full_softmax_loss", "train"]
