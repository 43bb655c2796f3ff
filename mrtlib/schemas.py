"""What each kind of record holds: a schema of columns, by name.

Columns have one type each. Values are never NaN; what was not measured is null, and only where the
schema allows it.
"""

import pyarrow as pa


def _schema(required: str, nullable: str = "") -> pa.Schema:
    """Build a schema from words such as `seed:int`; values of `nullable` columns may be null."""
    kinds = {
        "str": pa.string(), "int": pa.int64(), "bool": pa.bool_(), "float": pa.float64(),
        "ids": pa.list_(pa.field("element", pa.int32(), nullable=False)),
    }  # fmt: skip
    pairs = [(*word.split(":"), False) for word in required.split()]
    pairs += [(*word.split(":"), True) for word in nullable.split()]
    return pa.schema([pa.field(name, kinds[kind], null) for name, kind, null in pairs])


SECONDS = ("sampling_s", "probing_s", "learning_s")  # columns of `steps` that hang on the machine
_SAMPLE = "method:str seed:int level:str problem:str sample:int "

SCHEMAS: dict[str, pa.Schema] = {
    # one rollout; boundaries are t_1..t_k in tokens, token_ids the whole output
    "rollouts": _schema(
        _SAMPLE + "prompt_ids:ids token_ids:ids text:str trace_tokens:int closed:bool "
        "ended:bool truncated:bool correct:bool boundaries:ids episodes:int",
        "answer:str",
    ),
    # one boundary of one rollout; tokens is t_j, J in [0, 1], progress is null at j = 0
    "progress": _schema(
        _SAMPLE + "j:int tokens:int estimator:str answers:int right:int J:float kind:str",
        "low:float high:float progress:float boxed:float",
    ),
    # one rollout cut at one budget; tokens are thinking tokens used
    "budgets": _schema(
        _SAMPLE + "budget:int accuracy:float tokens:int forced:bool extrapolated:bool"
    ),
    # one answer of mu, the k-th at boundary j; tokens is t_j, logprob the mean over the answer's
    # own tokens in nats, answer_tokens how many those are
    "answers": _schema(
        _SAMPLE + "j:int tokens:int k:int correct:bool logprob:float kind:str answer_tokens:int",
        "answer:str",
    ),
    # the k-th attempt at an answer, "parallel" or "linearised": tokens generated and through the
    # model up to its end; its longest context, read; episodes dropped from the window by then
    "attempts": _schema(
        _SAMPLE + "way:str k:int tokens:int through:int read:int dropped:int correct:bool",
        "answer:str logprob:float",
    ),
    # one measure of `evaluation.results` at one budget, of one run of a part of the study, on one
    # test set: the mean over a problem's n rollouts
    "measures": _schema(
        "part:str method:str seed:int set:str level:str problem:str measure:str budget:int "
        "value:float n:int"
    ),
    # one optimiser step; what a method does not measure is null. generated_tokens: rollouts and
    # drawn answers of all steps so far; prover_tokens: what the prover read in this one;
    # credit_square, largest_share: of the episodes' credit, its mean square and its largest share
    # in one episode; sampled, probed, learned: tokens through the model in this step, padding too;
    # server_difference, server_ratio: of a server's log-probabilities from the trainer's, the mean
    # of their absolute difference, and of the weights that correct for it
    "steps": _schema(
        "method:str seed:int step:int generated_tokens:int prover_tokens:int",
        "reward:float progress:float regret:float length:float episodes:float truncated:float "
        "ended:float credit_square:float largest_share:float kl:float learning_rate:float "
        "grad_norm:float sampling_s:float probing_s:float learning_s:float "
        "sampled:float probed:float learned:float "
        "validation:float validation_regret:float validation_forced:float "
        "server_difference:float server_ratio:float",
    ),
}
