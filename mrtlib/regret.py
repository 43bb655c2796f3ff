"""Anytime curves, regret over a token budget, and efficiency at equal accuracy.

A trace has boundaries t_0 = 0 <= t_1 ... <= t_k (tokens) and success probabilities J_0 ... J_k.
Its anytime curve is a step function: J(n) = J_j for t_j <= n < t_{j+1}, held at J_k after t_k.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def anytime(J: ArrayLike, t: ArrayLike, grid: ArrayLike) -> Array:
    """Return J(n) at each budget of `grid`: what the trace is worth when cut there.

    >>> from mrtlib import anytime
    >>> anytime([0.1, 0.6, 0.9], [0, 40, 80], grid=[0, 39, 40, 200])
    array([0.1, 0.1, 0.6, 0.9])

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        grid: budgets in tokens, any shape, >= 0.
    """
    J, t = _checked(J, t)
    grid = np.asarray(grid, dtype=float)
    if not (grid >= 0).all():  # nor is a nan
        raise ValueError("a budget is a number of tokens from 0 on")
    return J[np.searchsorted(t, grid, side="right") - 1]


def area(J: ArrayLike, t: ArrayLike, budget: ArrayLike) -> Array:
    """Return the area under the anytime curve, ∫_0^C0 J(n) dn.

    = C0 · J_0 + Σ_j (J_j - J_{j-1}) · max(0, C0 - t_j): each step up or down counts from t_j on.

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        budget: C0 in tokens, any shape; the result has the same.
    """
    J, t = _checked(J, t)
    budget = np.asarray(budget, dtype=float)
    if not np.isfinite(budget).all():
        raise ValueError("an area needs a budget that is finite")
    left = np.maximum(0.0, budget[..., None] - t[1:])  # (..., k) tokens that a step lasts
    return budget * J[0] + left @ np.diff(J)


def normalised_regret(J: ArrayLike, t: ArrayLike, budget: ArrayLike) -> Array:
    """Return 1 - area / C0: the regret against an oracle that is right from the first token.

    In [0, 1], and 1 - regret = J_0 + Σ_j g_j with g from `credit.discounted_progress`.

    Two traces that end equally well; the second gets there later:

    >>> from mrtlib import normalised_regret
    >>> float(normalised_regret([0.0, 1.0], [0, 25], 100))
    0.25
    >>> float(normalised_regret([0.0, 1.0], [0, 75], 100))
    0.75

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        budget: C0 in tokens, positive, any shape; the result has the same.

    Source: arXiv 2503.07572, definition 4.1 over tokens with comparator 1 (figure 9).
    """
    budget = _positive(budget)
    return 1.0 - area(J, t, budget) / budget


def ramped_regret(accuracy: ArrayLike, tokens: ArrayLike, budget: ArrayLike) -> Array:
    """Return normalised regret as the authors' notebook draws it.

    1 - (1/C0) · ∫ y dx along the straight lines from (0, 0) through the points in their order,
    flat after the last, as far as they lie within C0. The ramp charges a trace for tokens before
    its first point, so this is larger than `normalised_regret` wherever accuracy climbs; it is
    for comparison with the paper's figures alone.

    Points may share a count of tokens, and one may lie before the last: mean answers differ in
    length. A line that goes back takes its area off again, as the notebook's trapezoid does.

    Args:
        accuracy, tokens: (k + 1,) points of the curve in the order of the boundaries (prompt,
            prefix, stop text and mean answer counted).
        budget: C0 in tokens, positive, any shape; the result has the same.

    Source: analysis/code/regret.ipynb of github.com/CMU-AIRe/MRT.
    """
    budget = _positive(budget)
    y = np.concatenate([[0.0], np.asarray(accuracy, dtype=float)])
    x = np.concatenate([[0.0], np.asarray(tokens, dtype=float)])
    if x.shape != y.shape or (x < 0).any() or not np.isfinite([x, y]).all():
        raise ValueError("accuracy and tokens must have one shape, be finite, and tokens be >= 0")
    run = np.diff(x)
    slope = np.divide(np.diff(y), run, out=np.zeros_like(run), where=run != 0)
    lines, ends = np.append(slope, 0.0), np.append(x, np.inf)  # flat after the last point
    cut = np.minimum(ends.reshape(-1, *[1] * budget.ndim), budget)  # (lines + 1, *budget)
    x0, y0, lines = (v.reshape(-1, *[1] * budget.ndim) for v in (x, y, lines))
    a, b = cut[:-1], cut[1:]
    areas = (b - a) * (y0 + lines * (a - x0) + y0 + lines * (b - x0)) / 2  # signed, of each line
    return 1.0 - areas.sum(axis=0) / budget


def ramped_regret_with_quirks(
    accuracy: ArrayLike, tokens: ArrayLike, answer_tokens: float, budget: ArrayLike
) -> Array:
    """Return `ramped_regret` with two slips of the authors' notebook, to compare with its numbers.

    Its answers count half of their tokens (8 were drawn, and their sum is divided by 16). And
    beyond the first thinking it puts (C0, last accuracy) behind all points without cutting those
    that lie beyond C0: the line back to C0 takes off what the line beyond it had added, and more
    or less, as its slope is another.

    Args:
        accuracy, tokens, budget: as for `ramped_regret`.
        answer_tokens: of the mean answer, that `tokens` count in full.

    Source: analysis/code/regret.ipynb of github.com/CMU-AIRe/MRT.
    """
    y = np.asarray(accuracy, dtype=float)
    x = np.asarray(tokens, dtype=float) - answer_tokens / 2
    within = ramped_regret(y, x, budget)  # checks them, too
    budget, last = np.asarray(budget, dtype=float), y[-1]
    whole = np.trapezoid([0.0, *y], [0.0, *x])
    back = whole + (budget - x[-1]) * last
    return np.where(x[-1] > budget, 1.0 - back / budget, within)[()]


def extrapolate(
    J: ArrayLike, t: ArrayLike, extension_J: ArrayLike, extension_tokens: ArrayLike
) -> tuple[Array, Array]:
    """Return the curve (J, t) of a trace with the points of its forced continuations.

    Continuation w ends at t_k + Σ_{v <= w} n_v. Area and regret at budgets beyond t_k then see
    what the extra thinking did instead of a flat line.

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        extension_J: (W,) success probability after each continuation.
        extension_tokens: (W,) tokens n_w that each continuation added, >= 0.

    Source: the paper's extrapolation experiment (figure 9, appendix F).
    """
    J, t = _checked(J, t)
    extra, tokens = np.asarray(extension_J, float), np.asarray(extension_tokens, float)
    if extra.shape != tokens.shape or extra.ndim != 1 or (tokens < 0).any():
        raise ValueError("extension_J and extension_tokens must both be (W,), tokens >= 0")
    return np.concatenate([J, extra]), np.concatenate([t, t[-1] + np.cumsum(tokens)])


def tokens_to_reach(tokens: ArrayLike, accuracy: ArrayLike, target: ArrayLike) -> Array:
    """Return the fewest tokens at which a curve reaches an accuracy.

    Horizontal interpolation, linear between points, on the monotone envelope max_{n' <= n} of
    the curve: a curve that dips has still reached what it reached before. A target at or below
    the first point gives the first point's tokens (no extrapolation); one never reached, ∞.

    Args:
        tokens: (n,) of the points, in any order.
        accuracy: (..., n) one curve or many.
        target: (...) accuracy to reach; the result has the same shape.
    """
    x, y = _envelope(tokens, accuracy)
    target = np.asarray(target, dtype=float)[..., None]
    if np.isnan(target).any():
        raise ValueError("the accuracy to reach is nan; was the other curve measured?")
    first = (y < target).sum(-1, keepdims=True)  # first point at or above the target
    after = first.clip(1, x.shape[-1] - 1)
    (x0, x1), (y0, y1) = (
        [np.take_along_axis(curve, at, -1) for at in (after - 1, after)] for curve in (x, y)
    )
    between = x0 + (x1 - x0) * (target - y0) / np.where(y1 > y0, y1 - y0, 1.0)
    return np.select([first == 0, first == x.shape[-1]], [x[..., :1], np.inf], between)[..., 0][()]


def efficiency_at_equal_accuracy(
    tokens: ArrayLike, accuracy: ArrayLike, rival_tokens: ArrayLike, rival_accuracy: ArrayLike
) -> Array:
    """Return how many times fewer tokens we need for the best accuracy that the rival reaches.

    tokens_to_reach(rival, a*) / tokens_to_reach(ours, a*), a* = max of the rival's curve. Above
    1 we are cheaper. 0 when our curve never reaches a*: no number of tokens that was measured
    buys the rival's accuracy, and 0 stays the worst value of an interval. ∞ when we reach it with
    no tokens and the rival does not; 1 when both do.

    Args:
        tokens, rival_tokens: (n,) and (m,), ours and the rival's.
        accuracy, rival_accuracy: (..., n) and (..., m), one pair of curves or many.

    Source: arXiv 2503.07572, figures 7 and 8 (horizontal arrows).
    """
    target = np.max(np.asarray(rival_accuracy, dtype=float), -1)
    ours = tokens_to_reach(tokens, accuracy, target)
    theirs = tokens_to_reach(rival_tokens, rival_accuracy, target)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((ours == 0) & (theirs == 0), 1.0, theirs / ours)[()]


def _envelope(tokens: ArrayLike, accuracy: ArrayLike) -> tuple[Array, Array]:
    """Return tokens, ascending, and the monotone envelope, both (..., n)."""
    x, y = np.asarray(tokens, dtype=float), np.asarray(accuracy, dtype=float)
    if x.ndim != 1 or y.shape[-1:] != x.shape or len(x) == 0:
        raise ValueError("a curve needs tokens and accuracy of one length, at least one point")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("tokens and accuracy must be finite; leave out what was not measured")
    x = np.broadcast_to(x, y.shape)
    order = np.lexsort((y, x))
    x, y = (np.take_along_axis(curve, order, -1) for curve in (x, y))
    return x, np.maximum.accumulate(y, -1)


def _positive(budget: ArrayLike) -> Array:
    budget = np.asarray(budget, dtype=float)
    if not (np.isfinite(budget) & (budget > 0)).all():
        raise ValueError("normalised regret needs a budget that is positive and finite")
    return budget


def _checked(J: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    J, t = np.asarray(J, dtype=float), np.asarray(t, dtype=float)
    ordered = t.shape == J.shape and J.ndim == 1 and len(J) and (np.diff(t) >= 0).all()
    if not ordered or t[0] != 0 or not np.isfinite(t).all():
        raise ValueError("J and t must both be (k + 1,), and t ascend from t_0 = 0")
    if not np.isfinite(J).all():
        raise ValueError(f"J must be finite, not {J}; leave out what was not measured")
    return J, t


def stop_point(J: Sequence[float], rise: float = 0.05) -> int:
    """Return the first boundary from which J never rises by more than `rise`.

    min{j : max_{i >= j} J_i - J_j <= rise}. Always defined, since k itself qualifies.

    >>> from mrtlib import stop_point
    >>> stop_point([0.1, 0.7, 0.5, 0.72, 0.7])  # all after the first episode is waste
    1
    """
    J = np.asarray(J, dtype=float)
    if J.ndim != 1 or not len(J) or not np.isfinite(J).all():
        raise ValueError(f"J must be (k + 1,) and finite, not {J}; leave out what was not measured")
    later = np.maximum.accumulate(J[::-1])[::-1]
    return int(np.argmax(later - J <= rise))
