from .candidates import (
    Candidates as Candidates,
)
from .candidates import (
    sample_candidates as sample_candidates,
)
from .candidates import (
    stored_candidates as stored_candidates,
)
from .contrasts import (
    Contrast as Contrast,
)
from .contrasts import (
    MeanEstimate as MeanEstimate,
)
from .contrasts import (
    ModelValues as ModelValues,
)
from .contrasts import (
    mean_estimate as mean_estimate,
)
from .evaluator import Evaluation as Evaluation
from .evaluator import evaluate as evaluate
from .metrics import (
    RankMetrics as RankMetrics,
)
from .metrics import (
    ndcg_at_k as ndcg_at_k,
)
from .metrics import (
    rank_metrics as rank_metrics,
)
from .metrics import (
    recall_at_k as recall_at_k,
)
from .metrics import (
    tie_rate as tie_rate,
)
from .significance import holm as holm
