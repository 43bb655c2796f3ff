"""Rewards and advantages, each form its own named function over plain arrays.

G rollouts of one problem (a group), k episodes of a trace, T tokens. J: (k + 1,) success
probabilities J_0 ... J_k; t: (k + 1,) boundaries in tokens, t_0 = 0. Each function says whether
it returns rewards or advantages; `outcome` turns the rewards of a group into advantages. Credit
is an advantage of each episode's tokens, added to that of the outcome.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

EPSILON = 1e-4  # TRL's; a group of equal rewards gets advantage 0

DROPPED = -1  # of a trace that nothing is learned from
TIE = 0.01  # J closer than this are as good: the last doubt about an answer that has been found

Array = NDArray[np.float64]
Curve = tuple[Array, Array]  # J and t of one rollout, each (k + 1,)


@dataclass(frozen=True)
class Group:
    """What is known of the G rollouts of one problem when their rewards are turned to advantages.

    `goes_on` is false for a rollout that was made to answer where it began, at a stale prefix.
    """

    correct: Array  # (G,) outcomes in {0, 1}
    lengths: Array  # (G,) thinking tokens
    goes_on: NDArray[np.bool_]  # (G,)
    prefix_value: float = 0.0  # J(mu | the prefix that all began with), where it is needed
    length_weight: float = 0.0


def outcome(rewards: ArrayLike) -> Array:
    """Return group-normalised advantages: GRPO.

    A_i = (r_i - mean(r)) / (std(r) + 1e-4), std with ddof = 1, as TRL does. With 0/1 rewards its
    gradient is that of the success probability p, times a factor that depends on p alone: 1/√2 for
    groups of two, about 1/√(p (1 - p)) for large ones.

    Args:
        rewards: (..., G); each last axis is one group.
    Raises:
        ValueError: a group of fewer than two.

    Source: arXiv 2402.03300.
    """
    r = np.asarray(rewards, dtype=float)
    if r.ndim == 0 or r.shape[-1] < 2:
        raise ValueError("a group needs at least two rollouts: it is its own baseline")
    if not np.isfinite(r).all():
        raise ValueError(f"rewards must be finite, not {r}; grade every rollout")
    centred = r - r.mean(-1, keepdims=True)
    return centred / (r.std(-1, ddof=1, keepdims=True) + EPSILON)


def length_penalty(correct: ArrayLike, lengths: ArrayLike, alpha: float) -> Array:
    """Return the length-penalised rewards of a group.

    r_i = f_i · (1 - alpha · sigmoid((n_i - mean(n)) / std(n))), mean and std (ddof = 0) over
    the correct rollouts of the group; the argument is 0 where they all have one length. It follows
    no total: what a rollout earns depends on how long the others are.

    Args:
        correct: (G,) outcomes f in {0, 1}.
        lengths: (G,) tokens of each rollout.
        alpha: weight in [0, 1).

    Source: arXiv 2502.04463 (Arora and Zanette), the paper's length baseline.
    """
    f, n = np.asarray(correct, dtype=float), np.asarray(lengths, dtype=float)
    if f.shape != n.shape or not 0 <= alpha < 1:
        raise ValueError("correct and lengths must have one shape, and alpha lie in [0, 1)")
    if not f.any():
        return np.zeros_like(f)
    right = n[f > 0]
    z = (n - right.mean()) / (right.std() or np.inf)
    return f * (1 - alpha / (1 + np.exp(-z)))


def shaped_constant(f: ArrayLike, c: float, alpha: float) -> Array:
    """Return r_i = f_i + alpha · (f_i - c), which is GRPO in disguise and kept to show that.

    With c = J(mu | shared prefix) constant in the group, `outcome` of it is `outcome(f)` for
    every alpha > -1, up to `EPSILON`. It is not MRT, and no method trains on it.

    Source: the authors' early public code (github.com/CohenQU/grpo-metaMATH).
    """
    f = np.asarray(f, dtype=float)
    return f + alpha * (f - c)


def mixed_group(continued: ArrayLike, terminated: ArrayLike) -> tuple[Array, Array]:
    """Return the advantages of two halves of one group that share a stale prefix.

    A = outcome(continued ∪ terminated). With equal halves the mean advantage of the half that
    continues is (mean(continued) - mean(terminated)) / (2σ): the progress of going on.

    Its gradient is, for each prefix c, that of p_c on the tokens of going on and that of q_c on
    those of answering (the probabilities of being right by either), each times a factor that
    depends on p_c and q_c alone; both are 1/√2 for a group of two. To each half the other is a
    baseline, which has no gradient: progress scales the update and does not turn it, as no token
    of the model chooses between the halves. Prefixes come from an older policy by the definition of
    the objective (Eq. 2), and no gradient goes through them: they need no importance correction.

    Args:
        continued: (m,) rewards of rollouts that kept thinking behind the prefix.
        terminated: (n,) rewards of rollouts made to answer at the prefix.
    Returns:
        (m,) and (n,) advantages.

    Source: MRT (RL), arXiv 2503.07572, figure 6.
    """
    going_on = np.asarray(continued, dtype=float)
    advantages = outcome(np.concatenate([going_on, np.asarray(terminated, dtype=float)]))
    return advantages[: len(going_on)], advantages[len(going_on) :]


def termination_baseline(rewards: ArrayLike, prefix_value: ArrayLike) -> Array:
    """Return A_i = R_i - J(mu | prefix): REINFORCE with the meta-prover as baseline.

    No group mean and no std, so it does not vanish when a whole group agrees. J does not depend on
    the continuation, so the gradient is that of the probability of being right by going on from the
    prefix, exactly; a stale prefix needs no importance correction (see `mixed_group`).

    Args:
        rewards: (G,) rewards of the continuations.
        prefix_value: J at the prefix, a scalar or (G,).

    Source: train/rl/README of github.com/CMU-AIRe/MRT (August 2025).
    """
    return np.asarray(rewards, dtype=float) - np.asarray(prefix_value, dtype=float)


def progress(J: ArrayLike) -> Array:
    """Return the progress J_j - J_{j-1} of each episode, (k,) in [-1, 1].

    Sums to J_k - J_0 over a trace. Source: arXiv 2503.07572, definition 6.1.

    >>> from mrtlib import progress
    >>> progress([0.25, 0.25, 0.75])  # J_0, J_1, J_2: the first episode gained nothing
    array([0. , 0.5])
    """
    return np.diff(_curve(J))


def discounted_progress(J: ArrayLike, t: ArrayLike, budget: float) -> Array:
    """Return g_j = (J_j - J_{j-1}) · max(0, 1 - t_j / C0), (k,).

    The area that episode j's progress adds under the anytime curve, so that
    1 - regret = J_0 + Σ_j g_j: unlike plain progress it says when the progress was made.

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        budget: C0 in tokens.
    """
    J, t = _aligned(J, t)
    if budget <= 0:
        raise ValueError(f"the budget must be positive, not {budget}")
    return np.diff(J) * np.maximum(0.0, 1.0 - t[1:] / budget)


def episode_progress(J: ArrayLike, t: ArrayLike, budget: float) -> Array:
    """Return the credit of each episode's tokens: that episode's own progress, (k,).

    A_j = J_j - J_{j-1}, whatever its boundaries and the budget; nothing is summed over the trace,
    where it would telescope. Its expected gradient is that of no total: what an episode makes
    possible later is not paid.

    Source: the authors' online form (MRT-online, github.com/CMU-AIRe/MRT v0.1).
    """
    return progress(J)


def regret_to_go(J: ArrayLike, t: ArrayLike, budget: float) -> Array:
    """Return the credit of each episode's tokens: regret removed from here on, (k,).

    A_j = Σ_{i ≥ j} g_i, g from `discounted_progress`. With the token that makes boundary t_j paid
    A_j too (it decides g_j as well as those before it), less any baseline that is known before
    episode j, and J held fixed as a function of the prefix, E[Σ_n A ∇ log π(z_n)] is
    ∇ E[1 - regret]. Paid A_{j+1}, as a token of the episode that it opens, it is not.

    The later of two episodes that gain as much earns less, and the first is paid for both:

    >>> from mrtlib import regret_to_go
    >>> regret_to_go([0.0, 0.5, 1.0], [0, 25, 75], budget=100)
    array([0.5  , 0.125])

    Args:
        J, t: (k + 1,) success probabilities and boundaries, t_0 = 0.
        budget: C0 in tokens.
    """
    return np.cumsum(discounted_progress(J, t, budget)[::-1])[::-1]


def final_progress(J: ArrayLike, t: ArrayLike, budget: float) -> Array:
    """Return J_k - J_0 for every episode of the trace, (k,): the control of episodes' credit.

    It costs the same prover and says nothing about when the progress was made. With `less_others`
    its gradient is that of E[J_k], exactly (J held fixed as a function of the prefix).
    """
    return np.full(len(_curve(J)) - 1, J[-1] - J[0], dtype=float)


def less_others(curves: Sequence[Curve], gains: Sequence[Array]) -> list[Array]:
    """Return each rollout's gain, one number for all its episodes, less the mean of the others'.

    A trace that ends at once has one value, for the token that ends it.
    """
    whole = np.array([g[0] if len(g) else 0.0 for g in gains])
    less = whole - (whole.sum() - whole) / max(1, len(whole) - 1)
    return [np.full(max(1, len(g)), own) for g, own in zip(gains, less, strict=True)]


def less_group_mean(curves: Sequence[Curve], gains: Sequence[Array]) -> list[Array]:
    """Return each episode's gain less the mean over the episodes of the group.

    Closing the trace is paid 0. So it is favoured wherever the mean that is taken off is positive.
    """
    joined = np.concatenate([np.zeros(0), *gains])
    return [g - joined.mean() for g in gains] if joined.size else list(gains)


def less_expected(curves: Sequence[Curve], gains: Sequence[Array]) -> list[Array]:
    """Return each episode's gain less the gain to be expected there, from the rest of the group.

    An episode begins at t with success probability J. At t each other rollout o of the group is in
    an episode that began with J_o and gains G_o. The baseline is

        b = (1 - J) Σ_o max(G_o, 0) / Σ_o (1 - J_o) - J Σ_o max(-G_o, 0) / Σ_o J_o:

    what the others gain for each unit of failure probability, times the failure probability here,
    less what they lose for each unit of success probability, times the success probability here.
    A trace can gain 1 - J and lose J at most, so both ratios lie in [0, 1], and |b| <= 1. b is
    known before the episode's first token, so the expected gradient is the same with and without
    it. A trace that ends at once has one value, for the token that ends it.
    """
    out = []
    for own, (J, t) in enumerate(curves):
        others = [o for o in range(len(curves)) if o != own]
        begun = max(1, len(gains[own]))  # ending at once is a choice at t_0, like any other
        base = [_expected(curves, gains, others, float(j), start)
                for j, start in zip(J[:begun], t[:begun], strict=True)]  # fmt: skip
        out.append((gains[own] if len(gains[own]) else np.zeros(1)) - np.array(base))
    return out


def _expected(
    curves: Sequence[Curve], gains: Sequence[Array], others: list[int], J: float, start: float
) -> float:
    """Return the baseline of an episode that begins at `start` with success probability J."""
    gained = lost = failure = success = 0.0
    for o in others:
        curve, t = curves[o]
        ended = int(np.searchsorted(t, start, side="right")) - 1  # episodes that ended by then
        gain = gains[o][ended] if ended < len(gains[o]) else 0.0
        gained, lost = gained + max(gain, 0.0), lost + max(-gain, 0.0)
        failure, success = failure + 1 - curve[ended], success + curve[ended]
    return (1 - J) * _fraction(gained, failure) - J * _fraction(lost, success)


def _fraction(part: float, whole: float) -> float:
    """Return part / whole, in [0, 1] whatever rounding has done to a J at 0 or 1."""
    return min(1.0, part / whole) if whole > 1e-9 else 0.0


def budget_relative(values: ArrayLike, prior: ArrayLike, decay: float = 0.5) -> Array:
    """Return AnytimeReasoner's budget relative (BRPO) advantages, (G, m).

    R_s = Σ_{i ≥ s} p_i J(b_i), the return of the tokens between budgets b_{s-1} and b_s. Then
    A_s = R_s - (s/m) V1_s - (1 - s/m) V2_s for s = 0 ... m-1, where V1 is the discounted mean
    of the same trace's values at earlier budgets (weights decay^(s-i)) times Σ_{i ≥ s} p_i,
    and V2 is the group's mean return R_s. No division by a std.

    V1 is known before segment s, and changes no expectation. V2 holds the rollout itself: so the
    gradient is that of Σ_i p_i E[J(b_i)], with the part of segment s weighted by
    1 - (1 - s/m) / G.

    Args:
        values: (G, m) success probability of each rollout when cut at each of m budgets.
        prior: (m,) weights of the budgets; normalised here.
        decay: weight of a budget relative to the next one, in (0, 1].

    Source: arXiv 2505.13438 and its public code.
    """
    J, p = np.asarray(values, dtype=float), np.asarray(prior, dtype=float)
    if J.ndim != 2 or p.shape != J.shape[1:] or not 0 < decay <= 1:
        raise ValueError("values must be (G, m), prior (m,), and decay lie in (0, 1]")
    p = p / p.sum()
    m = len(p)
    returns = np.cumsum((J * p)[:, ::-1], axis=1)[:, ::-1]  # (G, m)
    rest = np.cumsum(p[::-1])[::-1]  # (m,) Σ_{i ≥ s} p_i
    s = np.arange(m)
    weights = np.where(s[:, None] > s, float(decay) ** np.abs(s[:, None] - s), 0.0)  # (m, m)
    weights[1:] /= weights[1:].sum(1, keepdims=True)
    own_past = J @ weights.T * rest  # (G, m) V1, 0 at s = 0
    return returns - (s / m) * own_past - (1 - s / m) * returns.mean(0)


def budget_return(curves: Sequence[Curve], budget: float) -> list[Array]:
    """Return `budget_relative` advantages of a group, (m,) a rollout, all budgets weighted alike.

    Args:
        curves: J and t at 0 and at m budgets, evenly spaced up to C0, for each rollout; a trace
            that is shorter holds its last value.
    """
    values = np.array([J[1:] for J, _ in curves])
    return list(budget_relative(values, np.ones(values.shape[1])))


def star(correct: ArrayLike, curves: Sequence[Curve]) -> NDArray[np.int64]:
    """Keep every right rollout whole (STaR): episodes kept of each, (G,); `DROPPED` for none.

    At the policy that was sampled, E[Σ ∇ log π of what is kept] is G ∇ E[r], r in {0, 1}.

    Args:
        correct: (G,) outcomes r of a problem's rollouts.
        curves: their J, which is not looked at, and boundaries.

    Source: arXiv 2203.14465; the baseline of arXiv 2503.07572.
    """
    right = np.asarray(correct, dtype=bool)
    return np.where(right, [len(t) - 1 for _, t in curves], DROPPED)


def mrt_star_keep(correct: ArrayLike, curves: Sequence[Curve]) -> NDArray[np.int64]:
    """Keep whole, of the right rollouts, those that gained most: episodes kept of each, (G,).

    The gains Σ_j (J_j - J_{j-1}) = J_k - J_0 telescope, and a problem has one J_0: what is ranked
    is J_k, and not when it was reached. All within `TIE` of the best are kept.

    At the policy that was sampled, with w = P(r = 0 or J_k <= own J_k + TIE)^(G-1) held fixed, the
    expected sum is G ∇ E[r w]: a right rollout counts less, the likelier the others beat it.

    Source: reading (a) of MRT (STaR), arXiv 2503.07572, figure 6.
    """
    right, last = np.asarray(correct, dtype=bool), np.array([J[-1] for J, _ in curves])
    best = last[right].max(initial=-np.inf)
    return star(right & (last >= best - TIE), curves)


def mrt_star_cut(correct: ArrayLike, curves: Sequence[Curve]) -> NDArray[np.int64]:
    """Cut each trace where it had gained most: episodes kept of each, (G,), or `DROPPED`.

    j = min{j : J_j >= max J - TIE}; a trace without J_j - J_0 > TIE is dropped. The outcome is
    not looked at: the paper wants the answer right behind the place where thinking terminates, so a
    trace that ends wrongly may be cut where it was right. Whoever cuts must see to that answer.

    Say one answer is drawn at the cut, behind the closing, and the trace dropped if it is wrong. At
    the policy that was sampled the expected sum is then G ∇ E[r v] with v held fixed: of an output
    that closes at prefix c, v = P(the cut is at c | c) / π(close | c). Closing is favoured, and
    most where π hardly ever closes. So it follows neither E[r] nor E[1 - regret].

    Source: reading (b) of MRT (STaR), arXiv 2503.07572, figure 6.
    """
    gains = [_curve(J) - J[0] for J, _ in curves]
    cuts = [int(np.argmax(gain >= gain.max() - TIE)) for gain in gains]
    return np.where([gain.max() > TIE for gain in gains], cuts, DROPPED)


def per_token(values: ArrayLike, boundaries: ArrayLike, length: int) -> Array:
    """Return (T,) values: the tokens of episode j get values[j-1], those behind the last 0.

    Args:
        values: (k,) one value an episode.
        boundaries: (k + 1,) with t_0 = 0; episode j is paid on the tokens t_{j-1} <= n < t_j.
        length: T >= t_k.
    """
    v, t = np.asarray(values, dtype=float), np.asarray(boundaries, dtype=int)
    if t.shape != (len(v) + 1,) or t[0] != 0 or (np.diff(t) < 0).any() or t[-1] > length:
        raise ValueError("boundaries must be (k + 1,), ascend from 0 and end within length")
    return np.concatenate([np.repeat(v, np.diff(t)), np.zeros(length - t[-1])])


def _curve(J: ArrayLike) -> Array:
    J = np.asarray(J, dtype=float)
    if J.ndim != 1 or len(J) == 0:
        raise ValueError(f"J must be (k + 1,) and hold at least J_0, not {J.shape}")
    if not np.isfinite(J).all():
        raise ValueError(f"J must be finite, not {J}; leave out what was not measured")
    return J


def _aligned(J: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    J, t = _curve(J), np.asarray(t, dtype=float)
    if t.shape != J.shape or t[0] != 0 or (np.diff(t) < 0).any():
        raise ValueError("t must have the shape of J, (k + 1,), and ascend from t_0 = 0")
    return J, t
