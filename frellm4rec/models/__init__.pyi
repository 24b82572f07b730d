from .config import RecommenderConfig as RecommenderConfig
from .frellm4rec.config import FreLLM4RecConfig as FreLLM4RecConfig
from .frellm4rec.model import FreLLM4Rec as FreLLM4Rec
from .registry import load_model as load_model
from .sasrec import SASRec as SASRec
from .sasrec import SASRecConfig as SASRecConfig
from .sequential import SequentialRecommender as SequentialRecommender
