from .config import TrainingConfig as TrainingConfig
from .config import TrainingRecord as TrainingRecord
from .trainer import train as train
