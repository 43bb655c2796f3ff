"""Figures in one style, a function a figure; and the widgets, each over a pure function.

A figure takes tidy tables (intervals computed elsewhere) and axes, and returns the axes. Without
axes it makes its own, 3.25 or 6.75 inches wide; `save` writes PDF, PNG and the numbers as CSV.
"""

from mrtlib.plotting.backtracking import (
    backtrack_progress,
    search_curves,
    votes_by_tokens,
    warm_start_loss,
)
from mrtlib.plotting.browser import explore_pasted, explore_traces
from mrtlib.plotting.budget import (
    accuracy_by_budget,
    headline,
    official_regret_by_budget,
    regret_by_budget,
    results_table,
    study_budgets,
)
from mrtlib.plotting.episodes import (
    accuracy_by_episode,
    accuracy_by_token,
    episode_counts,
    progress_by_episode,
    vote_or_think,
)
from mrtlib.plotting.estimators import (
    cost_by_boundaries,
    coverage,
    error_by_tokens,
    exact_against_sampled,
)
from mrtlib.plotting.gallery import keep, keep_both
from mrtlib.plotting.notebook import Answer, start
from mrtlib.plotting.reasoner import page_rows, reasoner_card, reasoner_page
from mrtlib.plotting.study import (
    study_ablations,
    study_curves,
    study_differences,
    study_lengths,
    study_reach,
    study_regret,
    study_removed,
    study_rivals,
    study_tokens,
    study_votes,
)
from mrtlib.plotting.style import METHODS, one_column, render, save
from mrtlib.plotting.trace import annotated_trace, trace_html
from mrtlib.plotting.training import (
    estimator_curves,
    forms_curves,
    learning_curves,
    seed_curves,
)
from mrtlib.plotting.widgets import as_html, budget_view, choose, explore_budgets

__all__ = [
    "Answer", "METHODS", "accuracy_by_budget", "accuracy_by_episode", "accuracy_by_token",
    "annotated_trace", "as_html", "backtrack_progress", "budget_view", "choose",
    "cost_by_boundaries", "coverage", "episode_counts", "error_by_tokens", "estimator_curves",
    "exact_against_sampled", "explore_budgets", "explore_pasted", "explore_traces",
    "forms_curves", "headline", "keep", "keep_both", "learning_curves",
    "official_regret_by_budget", "one_column", "page_rows", "progress_by_episode",
    "reasoner_card", "reasoner_page", "regret_by_budget", "render", "results_table", "save",
    "search_curves", "seed_curves", "start", "study_ablations", "study_budgets",
    "study_curves", "study_differences", "study_lengths", "study_reach", "study_regret",
    "study_removed", "study_rivals", "study_tokens", "study_votes", "trace_html",
    "vote_or_think", "votes_by_tokens", "warm_start_loss",
]  # fmt: skip
