"""The written schemas of every kind of record, and the check that rows fit them.

A record of `progress`, say, is one boundary of one rollout: method "outcome", seed 0, problem
"three-0007", sample 2, j 3, tokens 41 (t_3), J 0.62. No NaN is stored: what was not measured
is null, and only where the schema allows it.
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pyarrow as pa

Row = Mapping[str, Any]


class StoreError(ValueError):
    """A record that does not fit its schema, or a file that cannot be written or read."""


def _schema(required: str, nullable: str = "") -> pa.Schema:
    """Build a schema from words such as `seed:int`; values of `nullable` columns may be null."""
    kinds = {
        "str": pa.string(), "int": pa.int64(), "bool": pa.bool_(), "float": pa.float64(),
        "ids": pa.list_(pa.field("element", pa.int32(), nullable=False)),
    }  # fmt: skip
    pairs = [(*word.split(":"), False) for word in required.split()]
    pairs += [(*word.split(":"), True) for word in nullable.split()]
    return pa.schema([pa.field(name, kinds[kind], null) for name, kind, null in pairs])


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
    # one optimiser step; a measure that a method does not take is null. generated_tokens: rollouts
    # and sampled answers of all steps so far; prover_tokens: what the prover read in this one;
    # credit_square: mean square of the episodes' credit; largest_share: of all credit on the
    # step's tokens, the most that one episode holds
    "steps": _schema(
        "method:str seed:int step:int generated_tokens:int prover_tokens:int",
        "reward:float progress:float regret:float length:float episodes:float truncated:float "
        "ended:float credit_square:float largest_share:float "
        "kl:float learning_rate:float grad_norm:float sampling_s:float "
        "probing_s:float learning_s:float",
    ),
}


def schema(name: str) -> pa.Schema:
    """Return the schema `name`; StoreError names the choices when there is none."""
    if name not in SCHEMAS:
        raise StoreError(f"unknown schema {name!r}; choose one of {', '.join(SCHEMAS)}")
    return SCHEMAS[name]


def to_table(name: str, rows: Sequence[Row], where: str) -> pa.Table:
    """Turn rows into a table of the schema `name`, every value checked.

    Raises:
        StoreError: a column is missing, unknown or of another type; the message names it.
    """
    fields = schema(name)
    for at, row in enumerate(rows):
        for column in sorted(row.keys() ^ set(fields.names)):
            fault = "unknown" if column in row else "missing"
            raise StoreError(f"{where}: row {at} of {name!r}: column {column!r} is {fault}")
    columns = [
        pa.array([_cell(row[field.name], field, f"{where}: row {at} of {name!r}")
                  for at, row in enumerate(rows)], field.type)
        for field in fields
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=fields)


def conform(table: pa.Table, name: str, where: str) -> pa.Table:
    """Return the columns of the schema `name` from a table that was read, checked and in order.

    Raises:
        StoreError: a column is missing or of another type; the message names it.
    """
    fields = schema(name)
    found = {field.name: field.type for field in table.schema}
    for field in fields:
        if not field.type.equals(found.get(field.name, pa.null())):
            has = found.get(field.name, "no such column")
            raise StoreError(f"{where}: column {field.name!r} needs {field.type}, has {has}")
    return table.select(fields.names).cast(fields)


def _cell(value: Any, field: pa.Field, where: str) -> Any:
    """Return a value fit for its column; by hand, as pyarrow turns 1.5 into 1 and True into 1.0."""
    kind, is_bool = field.type, isinstance(value, bool | np.bool_)
    if field.nullable and (value is None or (isinstance(value, Real) and np.isnan(value))):
        return None
    if pa.types.is_list(kind):
        fits = isinstance(value, list | tuple | np.ndarray) and all(map(_is_id, value))
    elif pa.types.is_boolean(kind):
        fits = is_bool
    elif pa.types.is_integer(kind):
        fits = isinstance(value, Integral) and not is_bool
    elif pa.types.is_floating(kind):
        fits = isinstance(value, Real) and not is_bool and not np.isnan(value)
    else:
        fits = isinstance(value, str)
    if not fits:
        raise StoreError(f"{where}: column {field.name!r} needs {field.type}, got {value!r:.60}")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -1 < value < 2**31
