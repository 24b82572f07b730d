from .config import TrainingConfig as TrainingConfig
from .config import TrainingRecord as TrainingRecord
from .losses import full_softmax_loss as full_softmax_loss
from .trainer import train as train
