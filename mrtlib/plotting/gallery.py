"""Figures kept with their captions: each file beside its numbers, and a page that shows them all.

A caption names the model, the problems and what the bands are, as a paper's must.
"""

import re
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrtlib.config import Profile
from mrtlib.plotting.style import one_column, save
from mrtlib.store import write_text

PAGE, HEAD = "README.md", "# Figures\n\nEach is here as PDF, as PNG and, with the numbers, as CSV."
NARROW = "_column"  # behind the stem of a form for one column of a page

# The base, its traces and what was asked of them; then what the intervals are.
BASE = "Base model: {model}; {test} test problems of {family} ({levels})."
SOME = "Base model: {model}; some of the test problems of {family} ({levels})."
TRAINED = "Base model: {model}, with LoRA adapters trained on it; {test} test problems ({levels})."
PROBLEMS = "Intervals are 95 %, over problems."
CROSSED = "Intervals are 95 %, over training seeds and problems, crossed."
SEEDS = "Bands are 95 % t intervals over training seeds."
CAPTIONS = {
    "reasoner_page": "The model at a glance: what was required of it and what was measured, its "
    f"loss while it was made, and three rollouts. {BASE} {PROBLEMS}",
    "episode_counts": "Share of traces by their number of episodes, for three ways to cut a trace."
    f" {BASE} {PROBLEMS}",
    "accuracy_by_episode": "Accuracy of one answer and of votes (maj@p) after each episode, in "
    "buckets of traces by their number of episodes; above, votes weigh their likelihood. "
    f"{BASE} {PROBLEMS}",
    "accuracy_by_token": "Accuracy of one answer and of votes (maj@p) over all tokens spent, in "
    "buckets of traces by their number of episodes; above, votes weigh their likelihood. "
    f"{BASE} {PROBLEMS}",
    "vote_or_think": "Accuracy of a vote at each boundary, less that of thinking on to the end; "
    f"paired. {BASE} Intervals of a curve hold together with 95 % (Bonferroni).",
    "annotated_trace": "One trace of {model}: its episodes, J after each, and what each gained.",
    "progress_by_episode": "Mean progress of episode j, the change of J that it brings. "
    f"{BASE} {PROBLEMS}",
    "exact_against_sampled": "J sampled against exact J at the same boundaries; shaded is where "
    "95 % of honest samples fall. " + SOME,
    "error_by_tokens": "Root mean square error of progress by estimator, over the tokens that it "
    f"costs, against answers drawn 256 times. {SOME} {PROBLEMS}",
    "estimator_curves": "Learning with the reward measured exactly and by samples, over all "
    "tokens through the model; training rollouts of {model}. " + SEEDS,
    "cost_by_boundaries": "What J of a trace of 1,024 tokens costs by the number of its "
    "boundaries, on {model}; bands are the range of three runs.",
    "learning_curves": "Training rollouts: share of right answers, normalised regret at C0 = {c0} "
    "tokens and length of a trace, means of five steps; of outcome RL, regret is measured in every "
    "fifth step alone. Base model: {model}. " + SEEDS,
    "learning_curves_by_seed": "The same as the learning curves, a line a training seed.",
    "forms_curves": "Validation while each form of the method trains, one seed each, from {model}; "
    "squares are outcome RL, its band Wilson's 95 % interval over problems.",
    "accuracy_by_budget": "Accuracy when thinking is cut at each budget (C0 = {c0} tokens). "
    f"{TRAINED} {CROSSED}",
    "regret_by_budget": "Normalised regret over the budget (C0 = {c0} tokens); lower is better. "
    f"{TRAINED} {CROSSED}",
    "official_regret_by_budget": "Regret along the ramp of the authors' notebook, over all tokens. "
    f"{TRAINED} {CROSSED}",
    "headline": "Accuracy and normalised regret over the budget (C0 = {c0} tokens). "
    f"{TRAINED} {CROSSED}",
    "results_table": "Results at C0 = {c0} tokens, and paired differences to outcome RL. "
    f"{TRAINED} {CROSSED}",
    "coverage": "How often 95 % intervals of each kind held the truth in simulations: by the "
    "closed form that this library uses, and by the percentile bootstrap. In the grey band they "
    "should; an arrow at the edge stands for less than is drawn.",
    "warm_start_loss": "Loss on held-out traces while backtracking search is warm-started on "
    "each kind of data (the paper's figure 15).",
    "search_curves": "Training rollouts of backtracking search, one seed. Base model: {model}.",
    "backtrack_progress": "What a return to an earlier step gains, as histograms (the paper's "
    f"figure 16). {TRAINED}",
    "votes_by_tokens": "Votes in one long stream and over parallel samples, by all tokens "
    "generated; a stream has the interval of its end (a line). Base model: {model}, with LoRA "
    "adapters of one training seed; some of the test problems ({levels}). " + PROBLEMS,
    "study_curves": "Validation over tokens through the model, the study's runs from {model}; "
    "bands are cut where no curve is, and left out where many methods share a panel. " + SEEDS,
    "study_budgets": "Accuracy and normalised regret over the budget, long runs of the study; "
    "beyond C0 over the seeds that were measured there, which may be fewer. "
    f"{TRAINED} {CROSSED}",
    "study_removed": "Share of outcome RL's regret that each method removes, paired, at equal "
    "tokens through the model; each over the seeds on record, which are not as many for all. "
    f"{TRAINED} {CROSSED}",
    "study_lengths": "Thinking tokens of the rollouts while each method trains (the paper's "
    "figure 10), the study's runs from {model}; many methods in a panel have no bands. " + SEEDS,
    "study_votes": "Accuracy of the vote of 1 to 10 rollouts over all their tokens (the paper's "
    "figure 7), long runs, each method over the seeds on record. " f"{TRAINED} {CROSSED}",
    "study_reach": "Regret against the better of thinking on and voting, over the first episodes "
    "of a trace (the paper's appendix E), long runs, each method over the seeds on record. "
    f"{TRAINED} {CROSSED}",
    "study_ablations": "What one change of the settings does to `episode_progress`, short runs, "
    "paired, on the validation problems. Base model: {model}. " + CROSSED,
    "study_differences": "Differences to outcome RL at equal tokens through the model, paired, by "
    f"length of run. {TRAINED} {CROSSED}",
    "study_regret": "Normalised regret of every method over the budget, up to C0 = {c0} tokens, "
    "beside outcome RL and the base; each from its longest runs on record. Wide bands are cut. "
    f"{TRAINED} {CROSSED}",
    "study_tokens": "Accuracy of every method over the thinking tokens that it used, where "
    "thinking is cut at each budget up to C0 = {c0} tokens, beside outcome RL and the base; each "
    f"from its longest runs on record. Wide bands are cut. {TRAINED} {CROSSED}",
    "study_rivals": "Every method of the middle runs against the paper's form of MRT at C0, "
    "paired, at equal tokens through the model. Where outcome RL's intervals are wider than all "
    f"others they are cut. {TRAINED} {CROSSED}",
    "study_sets": "Differences to outcome RL at equal tokens through the model, short runs, "
    "paired, on the test problems and on two sets of kinds that were not trained on, of which "
    "hardly any is solved. Base model: {model}, with LoRA adapters trained on it. " + CROSSED,
}  # fmt: skip


def caption(stem: str, settings: Profile) -> str:
    """Return the caption of a figure of this library, "" of any other."""
    data = settings.data
    levels = "level" + "s" * (len(data.levels) > 1) + " " + " and ".join(data.levels)
    words = {
        "model": settings.model.title, "family": data.family, "levels": levels,
        "test": data.test * len(data.levels), "c0": settings.thinking.budget,
    }  # fmt: skip
    return CAPTIONS.get(stem, "").format(**words)


def keep(
    axes: Axes | Figure | Sequence[Axes], stem: str, table: pd.DataFrame, settings: Profile
) -> None:
    """Write a figure into the profile's folder as STEM.pdf, .png and .csv, and put it on its page.

    Args:
        axes: of the figure, or the figure.
        table: everything that is drawn.

    Raises:
        ValueError: the table is empty.
    """
    save(_figure(axes), stem, table, settings.figures)
    _put_on_page(stem, settings)


def keep_both(
    draw: Callable[[], Sequence[Axes]], stem: str, table: pd.DataFrame, settings: Profile,
    draw_narrow: Callable[[], Sequence[Axes]] | None = None,
) -> None:  # fmt: skip
    """Keep a figure as wide as a page and, as STEM_column, one in a column, its panels stacked.

    Args:
        draw_narrow: draws the one in a column, where all panels would be too many for a page.
    """
    keep(draw(), stem, table, settings)
    with one_column():
        narrow = _figure((draw_narrow or draw)())
    save(narrow, stem + NARROW, table, settings.figures)
    plt.close(narrow)  # the numbers are the same, and so is the notebook's picture
    (settings.figures / f"{stem}{NARROW}.csv").unlink()


def _figure(axes: Axes | Figure | Sequence[Axes]) -> Figure:
    return axes if isinstance(axes, Figure) else np.ravel(np.asarray(axes, dtype=object))[0].figure


def _put_on_page(stem: str, settings: Profile) -> None:
    """Write a figure's section of the page anew; sections are in the order of CAPTIONS."""
    page = settings.figures / PAGE
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    parts = {section.partition("\n")[0]: section.strip() for section in sections}
    words = caption(stem, settings)
    seen = words.partition(". ")[0].rstrip(".") or stem  # for those who do not see it
    parts[stem] = f"{stem}\n\n![{seen}]({stem}.png)\n\n{words}".strip()
    known = [*CAPTIONS, *sorted(parts.keys() - CAPTIONS.keys())]
    written = [f"## {parts[name]}" for name in known if name in parts]
    write_text(page, "\n\n".join([HEAD, *written]) + "\n")
