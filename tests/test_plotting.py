"""Every figure on synthetic records: it draws, fits, can be read and is saved byte for byte."""

import itertools
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from mrtlib import plotting, regret
from mrtlib.config import COMPARED, LABELS, PROFILES, ROOT, load_profile
from mrtlib.evaluation import tables
from mrtlib.experiments import episode_analysis, forms, study_results
from mrtlib.plotting import (
    backtracking,
    budget,
    episodes,
    estimators,
    gallery,
    style,
    trace,
    training,
)
from mrtlib.plotting.backtracking import FAMILIES, KINDS
from mrtlib.plotting.estimators import COLOURS, LEAST, binomial_band

METHODS = ("base", "outcome", "episode_progress", "regret_to_go")
C0 = 160
EPISODES = [
    "First, 7 + 5 = 12.\n\n12 * 3 = 36.\n\nToo high.\n\n",
    "Wait, 7 - 5 = 2.\n\n2 * 3 = 6.\n\nToo low.\n\n",
    "Alternatively, 5 * 3 = 15.\n\n15 + 7 = 22.\n\nThat is it. So 5 * 3 + 7 works.\n\n",
    "Wait, 7 + 5 = 12.\n\n12 * 3 = 36.\n\nToo high. So 5 * 3 + 7 works.\n\n",
]


def banded(rows, columns, width=0.03):
    """Return rows as a table with an interval around the last column, `estimate`."""
    table = pd.DataFrame(rows, columns=[*columns, "estimate"])
    return table.assign(low=table["estimate"] - width, high=table["estimate"] + width)


def a_trace(**changes):
    J = [0.08, 0.11, 0.07, 0.83, 0.81]
    whole = episode_analysis.TraceView(
        question="Reach 22 with 3, 5, 7.", method="outcome", problem="three-3.5.7-22", sample=2,
        episodes=EPISODES, tokens=[0, 16, 31, 56, 78], J=J, correct=True,
    )  # fmt: skip
    return replace(whole, **changes)


def some_results():
    rows = []
    for i, method in enumerate(METHODS):
        for n in range(20, 2 * C0 + 1, 20):
            accuracy = (0.35 + 0.06 * i) * (1 - np.exp(-n / (60 - 8 * i))) + 0.05
            rows += [(method, "all", "all", "accuracy", n, accuracy),
                     (method, "all", "all", "official_regret", n, 1 - 0.7 * accuracy),
                     (method, "all", "all", "regret", n, 1 - 0.8 * accuracy)]  # fmt: skip
            rows.append((method, "0", "all", "accuracy", n, 0.99))  # one seed: never drawn
        for metric, value in (("tokens", 91.3 - 7 * i), ("episodes", 3.21), ("truncated", 0.052),
                              ("pass@4", 0.71), ("maj@4", 0.503),
                              ("natural_accuracy", 0.36)):  # fmt: skip
            rows.append((method, "all", "all", metric, C0, value))
        if i > 1:
            for metric, value in (("accuracy", 0.031), ("regret", -0.044), ("tokens", -12.4)):
                rows.append((method, "all", "all", f"diff_to_outcome_{metric}", C0, value))
    table = banded(rows, ["method", "seed", "level", "metric", "budget"])
    return table.assign(problems=250, samples=4)


def some_counts():
    return banded(
        [(m, level, n, np.exp(-0.5 * (n - 3 + 0.4 * i) ** 2) / 2.5)
         for i, m in enumerate(METHODS) for level in ("three", "four") for n in range(1, 9)],
        ["method", "level", "episodes"],
    )  # fmt: skip


BUCKETS = ("1–4 episodes (n = 9)", "5–8 episodes (n = 9)", "9 episodes (n = 9)")


def some_accuracy(step):
    curves = {"maj@1": 0.0, "maj@2": 0.04, "maj@4": 0.12, "maj@8": 0.15, "direct": 0.18}
    return banded(
        [(rule, c, x * step, bucket, 0.3 + plus + (0.02 * x if c == "direct" else 0.003 * x))
         for rule in ("likelihood", "plain") for c, plus in curves.items()
         for bucket in BUCKETS for x in range(8)],
        ["rule", "curve", "x", "bucket"],
    )  # fmt: skip


def some_contests():
    return banded([(bucket, p, j, 0.1 * j - 0.4 + 0.01 * p) for bucket in BUCKETS
                   for p in (1, 8) for j in range(5)], ["bucket", "votes", "j"])  # fmt: skip


def some_progress():
    return banded([(m, j, 0.3 / j - 0.02 * i) for i, m in enumerate(METHODS) for j in range(1, 7)],
                  ["method", "j"])  # fmt: skip


def some_pairs():
    rng = np.random.default_rng(0)
    exact = rng.beta(0.5, 0.7, 400)
    return pd.DataFrame({"exact": exact, "sampled": rng.binomial(8, exact) / 8, "answers": 8})


def some_steps():
    quantities = {"reward": (0.4, 0.01), "regret": (0.7, -0.008), "length": (110, -0.9)}
    return banded(
        [(m, step, q, start + slope * step * (1 + 0.3 * i))
         for i, m in enumerate(METHODS[1:]) for q, (start, slope) in quantities.items()
         for step in range(0, 41, 2)],
        ["method", "step", "quantity"],
    )  # fmt: skip


def some_seeds():
    steps = some_steps()[["method", "step", "quantity", "estimate"]]
    return pd.concat([steps.assign(seed=s, estimate=steps["estimate"] * (1 + 0.03 * s))
                      for s in (-1, 0, 1)])  # fmt: skip


def some_card():
    nan = float("nan")
    rows = [("boxed at the end of thinking", 0.99, 0.95, nan), ("boxed when cut", 0.97, 0.9, nan),
            ("accuracy, three numbers", 0.62, 0.35, 0.75),
            ("accuracy, four numbers", 0.31, 0.1, 0.5),
            ("truncated at C0", 0.06, nan, 0.15)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["name", "estimate", "at_least", "at_most"])
    return table.assign(low=table["estimate"] - 0.02, high=(table["estimate"] + 0.02).clip(upper=1))


def some_losses():
    return pd.DataFrame({"tokens": range(0, 10**6, 10**5), "loss": 2 / np.arange(1, 11)})


def some_examples():
    return [episode_analysis.Example(title, EPISODES[:2], [False, True], "Answer: 5 * 3 + 7")
            for title in ("Reach 22 with 3, 5, 7. (right, three)", "Reach 8 with 3, 5. (wrong)")]


def some_costs():
    rows = [(way, b, 200 + b * each, b * each / 3000 + 0.05)
            for way, each in (("packed", 40), ("one pass each", 230), ("sampled, K = 8", 900))
            for b in (1, 2, 4, 8, 16)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["way", "boundaries", "tokens", "seconds"])
    return table.assign(low=0.9 * table["seconds"], high=1.1 * table["seconds"])


def some_errors():
    rows = [("exact", 0, 560, 0.016, 0.019)]
    rows += [(f"sampled, K = {k}", k, 350 + 48 * k, 0.3 / k**0.5, 0.31 / k**0.5)
             for k in (1, 2, 4, 8, 16)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["way", "answers", "tokens", "error", "predicted"])
    return table.assign(low=0.8 * table["error"], high=1.2 * table["error"], floor=0.019)


def some_learning():
    return banded(
        [(name, total, q, start + slope * total / 1e6)
         for name, slope in (("exact", 0.2), ("sampled, K = 1", 0.15), ("sampled, K = 16", 0.1))
         for q, start in (("reward", 0.3), ("regret", 0.6))
         for total in range(50_000, 10**6, 50_000)],
        ["estimator", "total", "quantity"],
    )  # fmt: skip


def some_coverage():
    kinds = ("mean", "relative regret, one level", "tokens at equal accuracy", "share of 99.7 %")
    rows = [(kind, way, n, value - 0.02 * i - (0.6 if kind.startswith("share") else 0) * old)
            for kind in kinds for i, n in enumerate((50, 250, 500))
            for old, way, value in ((0, "closed form", 0.96), (1, "bootstrap", 0.94))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["kind", "way", "problems", "coverage"])
    return table.assign(low=table["coverage"] - 0.01, high=table["coverage"] + 0.01)


SEARCHERS = ("base", "outcome", "mixed_group", "star", "mrt_star_cut")


def some_shares():
    bins = np.linspace(-1.1, 1.1, 12)
    rows = [(m, part, a, b, np.exp(-((a + b - 0.1 * i) ** 2) / 0.1) / 3, 0.05 * i)
            for i, m in enumerate(SEARCHERS)
            for part in ("error line", "error line and new attempt")
            for a, b in zip(bins[:-1], bins[1:], strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "part", "left", "right", "share", "mean"])


def some_votes():
    return banded(
        [(m, way, k, 90 * k, 0.3 + 0.05 * i + 0.03 * np.log(k) + 0.02 * k * n)
         for i, m in enumerate(SEARCHERS) for n, way in enumerate(("parallel", "linearised"))
         for k in range(1, 11)],
        ["method", "way", "k", "tokens"],
    )  # fmt: skip


def some_warm_starts():
    return banded([(kind, step, 1 / (1 + i + step)) for i, kind in enumerate(KINDS)
                   for step in range(0, 200, 10)], ["kind", "step"])  # fmt: skip


def some_study():
    quantities = ("natural accuracy", "forced accuracy", "normalised regret")
    keys = list(itertools.product(("short", "long"), METHODS[1:], (0.5, 1.0, 1.6), quantities))
    rows = [(*key, 0.4 + 0.1 * key[2]) for key in keys]
    return banded(rows, ["part", "method", "through", "quantity"])


def some_differences():
    measures = ("natural accuracy", "forced accuracy", "regret")
    keys = itertools.product(("test", "larger", "five"), METHODS[2:], measures)
    return banded([(*key, 0.03) for key in keys], ["set", "method", "measure"])


def some_lengths():
    keys = itertools.product(("short", "long"), METHODS[1:], (0.5, 1.0, 1.6))
    return banded([(*key, 150.0 - 10 * key[2]) for key in keys], ["part", "method", "through"])


def some_removed():
    keys = itertools.product(("short", "long"), METHODS[2:], (56, 112, C0))
    return banded([(*key, 0.05) for key in keys], ["part", "method", "budget"])


def some_study_votes():
    keys = itertools.product(METHODS, range(1, 11))
    return banded([(method, k, 150.0 * k, 0.3 + 0.02 * k) for method, k in keys],
                  ["method", "votes", "tokens"])  # fmt: skip


def some_reach():
    keys = itertools.product(METHODS, range(1, 9))
    return banded([(*key, 0.1) for key in keys], ["method", "budget"])


def some_methods():
    keys = itertools.product(("long",), METHODS[2:], study_results.SIDES, ("accuracy", "regret"),
                             (56, 112, C0))  # fmt: skip
    rows = [(*key, 0.8 * key[-1], 0.3 + key[-1] / 1000) for key in keys]
    return banded(rows, ["part", "method", "series", "metric", "budget", "used"])


def some_rivals():
    keys = itertools.product(METHODS[1:], ("natural accuracy", "regret"))
    return banded([(*key, 0.03) for key in keys], ["method", "measure"])


def some_ablations():
    keys = itertools.product(("outcome RL", "α = 3", "groups of 4"), ("natural accuracy", "regret"))
    return banded([(*key, 0.03) for key in keys], ["variant", "measure"])


RESULTS = some_results()
# figure: (arguments, the table that is saved beside it, figure width in inches)
CASES = {
    "episode_counts": ((some_counts(),), some_counts(), 6.75),
    "accuracy_by_episode": ((some_accuracy(1),), some_accuracy(1), 6.75),
    "accuracy_by_token": ((some_accuracy(15),), some_accuracy(15), 6.75),
    "vote_or_think": ((some_contests(),), some_contests(), 6.75),
    "annotated_trace": ((a_trace(),), episode_analysis.trace_rows(a_trace()), 6.75),
    "progress_by_episode": ((some_progress(),), some_progress(), 3.25),
    "exact_against_sampled": ((some_pairs(),), some_pairs(), 3.25),
    "learning_curves": ((some_steps(),), some_steps(), 6.75),
    "seed_curves": ((some_seeds(),), some_seeds(), 6.75),
    "accuracy_by_budget": ((RESULTS, C0), tables.budget_rows(RESULTS, ["accuracy"]), 3.25),
    "regret_by_budget": ((RESULTS, C0), tables.budget_rows(RESULTS, ["regret"]), 3.25),
    "official_regret_by_budget": (
        (RESULTS, C0), tables.budget_rows(RESULTS, ["official_regret"]), 3.25,
    ),
    "headline": ((RESULTS, C0), tables.budget_rows(RESULTS), 6.75),
    "results_table": ((RESULTS, C0), tables.results_rows(RESULTS, C0), 6.75),
    "reasoner_card": ((some_card(),), some_card(), 3.25),
    "reasoner_page": ((some_card(), some_losses(), some_examples()), some_card(), 6.75),
    "error_by_tokens": ((some_errors(),), some_errors(), 3.25),
    "estimator_curves": ((some_learning(),), some_learning(), 6.75),
    "coverage": ((some_coverage(),), some_coverage(), 3.25),
    "warm_start_loss": ((some_warm_starts(),), some_warm_starts(), 3.25),
    "search_curves": ((some_steps(),), some_steps(), 6.75),
    "study_budgets": ((RESULTS, C0), tables.budget_rows(RESULTS), 6.75),
    "study_curves": ((some_study(),), some_study(), 6.75),
    "study_lengths": ((some_lengths(),), some_lengths(), 6.75),
    "study_removed": ((some_removed(),), some_removed(), 6.75),
    "study_regret": ((some_methods(),), some_methods(), 6.75),
    "study_tokens": ((some_methods(),), some_methods(), 6.75),
    "study_rivals": ((some_rivals(),), some_rivals(), 6.75),
    "study_votes": ((some_study_votes(),), some_study_votes(), 3.25),
    "study_reach": ((some_reach(),), some_reach(), 3.25),
    "study_ablations": ((some_ablations(),), some_ablations(), 6.75),
    "study_differences": ((some_differences(),), some_differences(), 6.75),
    "backtrack_progress": ((some_shares(),), some_shares(), 6.75),
    "votes_by_tokens": ((some_votes(), 512), some_votes(), 6.75),
    "cost_by_boundaries": ((some_costs(),), some_costs(), 6.75),
}  # fmt: skip


def curves_of(ax):
    """Return the lines of an axes that hold points; seaborn's for the legend are empty."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 2]


def figure_of(drawn):
    if isinstance(drawn, Figure):
        return drawn
    return (drawn if isinstance(drawn, Axes) else drawn[0]).figure


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


@pytest.mark.parametrize("stem", CASES)
def test_figure_draws_fits_and_can_be_read(stem):
    arguments, _, width = CASES[stem]
    before = dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig = figure_of(getattr(plotting, stem)(*arguments))
        fig.draw_without_rendering()
    assert dict(mpl.rcParams) == before  # a figure leaves the user's settings alone
    assert fig.get_figwidth() == width
    page = fig.bbox.padded(1)
    for text in shown_texts(fig):
        assert text.get_fontsize() >= 6, text.get_text()
        box = text.get_window_extent()
        corners = np.array([*(box.min - page.min), *(page.max - box.max)])
        assert corners.min() >= 0, f"{text.get_text()!r} is clipped: {box}"


def shown_texts(fig):
    """Return the texts that are drawn; matplotlib keeps ticks beyond the limits as well."""
    beyond = set()
    for ax in fig.findobj(Axes):
        for axis in (ax.xaxis, ax.yaxis):
            drawn = set(map(id, axis._update_ticks())) if ax.axison else set()
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            beyond |= {id(label) for tick in ticks if id(tick) not in drawn
                       for label in (tick.label1, tick.label2)}  # fmt: skip
            if not ax.axison:
                beyond.add(id(axis.label))
    texts = [text for text in fig.findobj(Text) if text.get_visible() and id(text) not in beyond]
    return [text for text in texts if text.get_text().strip()]


@pytest.mark.parametrize("stem", [s for s in CASES if s != "results_table"])
def test_texts_do_not_collide(stem):
    fig = figure_of(getattr(plotting, stem)(*CASES[stem][0]))
    fig.draw_without_rendering()
    texts = shown_texts(fig)
    boxes = [text.get_window_extent().padded(-1) for text in texts]
    for i, box in enumerate(boxes):
        for other in range(i):
            pair = texts[i].get_text(), texts[other].get_text()
            assert not box.overlaps(boxes[other]), pair


def test_results_table_cells_stay_in_their_columns():
    ax = budget.results_table(RESULTS, C0)
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            # Only the line height of a number and its interval may touch.
            assert across <= 0 or down <= 0.35 * min(box.height, other.height)


@pytest.mark.parametrize("stem", ["headline", "annotated_trace", "exact_against_sampled"])
def test_saving_twice_gives_the_same_bytes_whatever_the_settings(stem, tmp_path):
    arguments, table, _ = CASES[stem]
    kept = []
    own = {"font.size": 30, "axes.grid": True, "axes.labelweight": "bold"}
    for folder, settings in (("a", {}), ("b", own)):
        with mpl.rc_context(settings):
            fig = figure_of(getattr(plotting, stem)(*arguments))
            paths = style.save(fig, stem, table, tmp_path / folder)
        assert [p.name for p in paths] == [f"{stem}.pdf", f"{stem}.png", f"{stem}.csv"]
        kept.append([p.read_bytes() for p in paths])
    assert kept[0] == kept[1]
    pdf, png, _ = kept[0]
    assert b"/CreationDate" not in pdf and b"/Type3" not in pdf and b"/Subtype /Type3" not in pdf
    width = int.from_bytes(png[16:20], "big")
    assert width == int(CASES[stem][2] * 300)


def test_saved_csv_holds_what_was_drawn(tmp_path):
    axes = budget.headline(RESULTS, C0)
    table = tables.budget_rows(RESULTS)
    written = pd.read_csv(style.save(axes[0].figure, "x", table, tmp_path)[2])
    for (metric, method), rows in written.groupby(["metric", "method"]):
        ax, colour = axes[list(tables.AXIS).index(metric)], style.METHODS[method].colour
        (line,) = (line for line in curves_of(ax) if line.get_color() == colour)
        np.testing.assert_allclose(line.get_xydata(), rows[["budget", "estimate"]], 1e-5)
        (band,) = (c for c in ax.collections if to_hex(c.get_facecolor()[0]) == colour.lower())
        edge = band.get_paths()[0].vertices
        for _, row in rows.iterrows():
            for end in ("low", "high"):
                assert np.isclose(edge, [row["budget"], row[end]], rtol=1e-5).all(axis=1).any()
    assert [len(curves_of(ax)) for ax in axes] == [len(METHODS)] * 2
    assert set(written["seed"]) == {"all"}


def test_a_legend_names_each_curve_by_its_own_look():
    for drawn in (budget.headline(RESULTS, C0), [budget.regret_by_budget(RESULTS, C0)]):
        (legend,) = drawn[0].figure.legends
        named = {text.get_text(): (handle.get_color(), handle.get_marker()) for text, handle in
                 zip(legend.get_texts(), legend.legend_handles, strict=True)}  # fmt: skip
        looks = [style.METHODS[m] for m in METHODS]
        assert named == {look.label: (look.colour, look.marker) for look in looks}
        for ax in drawn:
            assert ax.get_legend() is None
            seen = {(line.get_color(), line.get_marker()) for line in curves_of(ax)}
            assert seen == set(named.values())
    assert not episodes.progress_by_episode(some_progress().iloc[:6])[0].figure.legends  # one curve
    long = some_progress().assign(way=lambda t: t["method"] + 60 * ".", all="all")
    (ax,) = style.curves(long, "all", "way", "j", "episode")
    assert len(ax.figure.legends[0].get_texts()) == 4  # even where no two names fit side by side


def test_the_part_beyond_the_budget_is_marked_only_if_there_is_one():
    beyond = budget.accuracy_by_budget(RESULTS, C0)
    assert "extrapolated" in {t.get_text() for t in beyond.texts}
    within = budget.accuracy_by_budget(RESULTS[RESULTS["budget"] <= C0], C0)
    assert not within.texts


def test_a_row_of_panels_for_each_rule_of_votes():
    table = some_accuracy(1).sample(frac=1, random_state=0)
    table["rule"] = table["rule"].astype(pd.CategoricalDtype(["likelihood", "plain"]))
    table["bucket"] = table["bucket"].astype(pd.CategoricalDtype(BUCKETS))
    table = table.assign(estimate=table["estimate"] + 0.1 * (table["rule"] == "plain"))
    axes = plotting.accuracy_by_episode(table.sort_values(["rule", "bucket"]))
    assert [ax.get_title("left") for ax in axes] == [*BUCKETS, "", "", ""]
    assert [ax.get_ylabel() for ax in axes[::3]] == ["accuracy, likelihood vote",
                                                     "accuracy, plain vote"]  # fmt: skip
    lowest = [min(line.get_ydata().min() for line in curves_of(ax)) for ax in axes]
    assert lowest == pytest.approx([0.3] * 3 + [0.4] * 3)  # no panel holds another one's curves


def test_votes_are_solid_for_samples_and_dashed_for_a_stream():
    votes = some_votes()
    for ax, family in zip(plotting.votes_by_tokens(votes), FAMILIES.values(), strict=True):
        lines = curves_of(ax)
        assert len(lines) == 2 * len(family)
        for line in lines:
            (method,) = (m for m in family if style.METHODS[m].colour == line.get_color())
            way = "parallel" if line.get_linestyle() == "-" else "linearised"
            rows = votes[(votes["method"] == method) & (votes["way"] == way)]
            np.testing.assert_allclose(line.get_xydata(), rows[["tokens", "estimate"]])
    one = votes[votes["method"].isin(["base", "outcome"])]
    assert len(plotting.votes_by_tokens(one)) == 1
    with pytest.raises(ValueError, match="no two of base, star"):
        plotting.votes_by_tokens(votes[votes["method"] == "base"])


def test_bars_of_progress_stand_side_by_side_in_their_bin():
    shares = some_shares()
    for ax in plotting.backtrack_progress(shares):
        bars = [p for p in ax.patches if p.get_width() > 0]
        assert len(bars) == 3 * 11
        ends = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
        assert all(b <= a + 1e-9 for (_, b), (a, _) in itertools.pairwise(ends))
        centres = np.sort([bar.get_x() + bar.get_width() / 2 for bar in bars]).reshape(11, 3)
        bins = np.sort(shares["left"].unique())
        assert (centres > bins[:, None]).all() and (centres < bins[:, None] + 0.2).all()


def test_axes_that_are_given_are_used():
    fig, grid = plt.subplots(1, 2, layout="constrained")
    assert budget.headline(RESULTS, C0, grid) == list(grid)
    assert estimators.exact_against_sampled(some_pairs(), grid[0]) is grid[0]
    (ax,) = episodes.progress_by_episode(some_progress(), grid[1])
    assert ax is grid[1] and ax.get_ylabel() and ax.get_xlabel()
    with pytest.raises(ValueError, match="needs 2 axes, got 1"):
        budget.headline(RESULTS, C0, grid[:1])


def test_every_seed_has_its_line_in_the_panel_of_its_method_and_quantity():
    seeds = some_seeds()
    axes = training.seed_curves(seeds)
    methods, quantities = list(style.looks_of(seeds["method"])), list(training.QUANTITIES)
    assert len(axes) == len(methods) * len(quantities)
    for ax, (quantity, method) in zip(axes, itertools.product(quantities, methods), strict=True):
        own = seeds[(seeds["quantity"] == quantity) & (seeds["method"] == method)]
        lines = [line.get_xydata() for line in curves_of(ax)]
        for line, (_, run) in zip(lines, own.groupby("seed"), strict=True):
            np.testing.assert_array_equal(line, run[["step", "estimate"]])


def test_a_logarithmic_axis_looks_like_one():
    for low, high in ((0.9, 40_000), (0.02, 0.6), (3, 60), (150, 900)):
        fig, ax = plt.subplots()
        ax.set(yscale="log", ylim=(low, high))
        style.log_ticks(ax.yaxis)
        fig.draw_without_rendering()
        inside = [t for t in ax.get_yticks() if low <= t <= high]
        minor = [t for t in ax.yaxis.get_minorticklocs() if low <= t <= high]
        assert len(inside) >= 3 and len(minor) >= 3
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == [f"{t:,g}" for t in ax.get_yticks()]
        assert not any(label.get_text() for label in ax.get_yticklabels(minor=True))
    (ax, _) = estimators.cost_by_boundaries(some_costs())
    sizes = [tick.tick1line.get_markersize() for tick in ax.yaxis.get_minor_ticks()]
    assert len(sizes) >= 3 and all(sizes)


PANELS = ("headline", "cost_by_boundaries", "estimator_curves", "votes_by_tokens", "study_budgets",
          "study_curves", "learning_curves", "progress_by_episode")  # fmt: skip


@pytest.mark.parametrize("stem", PANELS)
def test_a_figure_of_panels_has_a_form_for_one_column(stem, tmp_path):
    arguments, table, _ = CASES[stem]
    profile = in_folder(tmp_path)
    gallery.keep_both(lambda: getattr(plotting, stem)(*arguments), stem, table, profile)
    names = {path.name for path in profile.figures.iterdir()}
    assert names == {f"{stem}.pdf", f"{stem}.png", f"{stem}.csv", f"{stem}_column.pdf",
                     f"{stem}_column.png", "README.md"}  # fmt: skip
    width = int.from_bytes((profile.figures / f"{stem}_column.png").read_bytes()[16:20], "big")
    assert width == int(3.25 * 300)
    with style.one_column():
        axes = getattr(plotting, stem)(*arguments)
        figure_of(axes).draw_without_rendering()
        places = [ax.get_position() for ax in axes]
    assert len({round(place.x0, 2) for place in places}) == 1
    assert all(below.y1 < above.y0 for above, below in itertools.pairwise(places))
    assert not figure_overflows(axes[0].figure)
    assert figure_of(getattr(plotting, stem)(*arguments)).get_figwidth() == CASES[stem][2]


def figure_overflows(fig):
    box = fig.get_tightbbox()
    return box.x0 < -0.02 or box.x1 > fig.get_figwidth() + 0.02


def in_folder(folder):
    return replace(load_profile("smoke"), name=str(folder))  # an absolute name is where it lies


def test_the_page_of_figures_is_in_order_and_names_model_and_levels(tmp_path):
    profile = in_folder(tmp_path)
    for stem in ("headline", "mine", "episode_counts", "headline"):
        gallery.keep(plt.figure(), stem, some_counts(), profile)
    page = (profile.figures / "README.md").read_text(encoding="utf-8")
    heads = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert heads == ["episode_counts", "headline", "mine"]
    assert "Base model: the embedded reasoner; 24 test problems of countdown (levels three" in page
    assert "![mine](mine.png)" in page and "C0 = 224 tokens" in page


@pytest.mark.parametrize(("methods", "bands"), [(6, True), (7, False)])
@pytest.mark.parametrize(("draw", "table"), [(plotting.study_curves, some_study()),
                                             (plotting.study_lengths, some_lengths())])  # fmt: skip
def test_many_methods_in_a_panel_have_no_bands(draw, table, methods, bands):
    names = list(plotting.METHODS)[:methods]
    table = pd.concat([table.query("method == 'outcome'").assign(method=name) for name in names])
    drawn = [len(path.vertices) for ax in draw(table) for band in ax.collections
             for path in band.get_paths()]  # fmt: skip
    assert (sum(drawn) > 0) == bands


def test_every_figure_of_the_notebooks_has_a_caption():
    kept = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        source = "".join(path.read_text(encoding="utf-8").split("\\n"))
        kept |= set(re.findall(r'\\"([a-z_]+)\\", \w+(?:\.\w+\([^)]*\))?, settings', source))
    assert kept == set(gallery.CAPTIONS)
    for stem in kept:
        for name in PROFILES:
            words = gallery.caption(stem, load_profile(name))
            assert words.endswith(".") and "{" not in words


def test_the_csv_of_the_page_holds_its_three_parts():
    rows = plotting.page_rows(some_card(), some_losses(), some_examples())
    assert set(rows["part"]) == {"measured", "loss", "rollout"}
    assert rows["loss"].notna().sum() == len(some_losses())
    texts = [words for example in some_examples() for words in [*example.episodes, example.ending]]
    assert list(rows["text"].dropna()) == texts


def test_coverage_off_the_edge_is_an_arrow_and_the_rest_lies_where_it_is():
    ax, table = estimators.coverage(some_coverage()), some_coverage()
    points, arrows = (c for c in ax.collections if isinstance(c, PathCollection))
    colour = np.array([to_hex(c).upper() for c in points.get_facecolors()])
    drawn = {way: points.get_offsets()[colour == c] for way, c in COLOURS.items()}
    assert len(drawn["closed form"]) == 12 and len(drawn["bootstrap"]) == 9
    np.testing.assert_array_equal(arrows.get_offsets()[:, 0], [LEAST] * 3)
    np.testing.assert_array_equal(np.round(arrows.get_offsets()[:, 1]), [3, 3, 3])
    assert set(colour[-12:]) == {COLOURS["closed form"]}  # drawn last, over the bootstrap's
    of_mean = drawn["closed form"][:3, 1]
    assert (np.diff(of_mean) > 0).all() and np.abs(of_mean).max() < 0.5  # 50, 250, 500 downward
    own = table[table["way"] == "closed form"]["coverage"]
    np.testing.assert_allclose(drawn["closed form"][:, 0], own)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_binomial_band_by_enumeration(k):
    for p in (0.0, 0.2, 0.5, 0.97, 1.0):
        low, high = binomial_band(np.array([p]), k)
        draws = [bin(n).count("1") for n in range(2**k)]
        chance = [p**d * (1 - p) ** (k - d) for d in draws]
        below = sum(c for c, d in zip(chance, draws, strict=True) if d < low[0] * k - 1e-9)
        above = sum(c for c, d in zip(chance, draws, strict=True) if d > high[0] * k + 1e-9)
        assert below <= 0.025 + 1e-9 and above <= 0.025 + 1e-9
        assert 0 <= low[0] <= p + 1 / k and p - 1 / k <= high[0] <= 1


@pytest.mark.parametrize(
    ("J", "expected"),
    [([0.5], 0), ([0.1, 0.2], 1), ([0.1, 0.14], 0), ([0.1, 0.9, 0.2, 0.93], 1), ([0.9, 0.1], 0)],
)
def test_stop_point(J, expected):
    assert regret.stop_point(J) == expected


def test_looks_differ_in_greyscale():
    """Of methods that are drawn together no two share a feature."""
    drawn = [("base", *COMPARED), *(("outcome", *names) for names in forms.FAMILIES.values()),
             tuple(dict.fromkeys(n for names in backtracking.FAMILIES.values() for n in names))]
    assert {name for names in drawn for name in names} == set(style.METHODS) == set(LABELS)
    for names in drawn:
        looks = [style.METHODS[name] for name in names]
        for feature in ("dashes", "marker", "label", "colour"):
            assert len({getattr(look, feature) for look in looks}) == len(looks)
    # Any may meet in the figures of the study.
    assert len({look[1:3] for look in style.METHODS.values()}) == len(style.METHODS)
    assert len({dashes for _, dashes, _ in style.SERIES}) == len(style.SERIES)
    assert len({marker for *_, marker in style.SERIES}) == len(style.SERIES)


def test_results_table_and_markdown_say_the_same():
    text = tables.results_markdown(RESULTS, C0)
    lines = text.splitlines()
    assert len(lines) == 2 + 4 + 2
    assert len({line.count("|") for line in lines}) == 1
    assert "| 5.2 [2.2, 8.2] |" in lines[2]
    first = "| regret-to-go \u2212 outcome RL | \u2013 | +3.1 [0.1, 6.1] | \u2013 |"
    assert lines[-1].startswith(first)
    drawn = {t.get_text() for t in budget.results_table(RESULTS, C0).texts}
    for number in re.findall(r"[+\u2212]?\d+\.\d+(?= \[)", text):
        assert number in drawn


def test_a_measure_that_is_missing_has_no_column_but_accuracy_must_be_there():
    fewer = RESULTS[RESULTS["metric"] != "pass@4"]
    assert "pass@4" not in tables.results_markdown(fewer, C0)
    with pytest.raises(ValueError, match="no accuracy at C0 = 170"):
        budget.results_table(RESULTS, 170)


def test_hostile_and_long_words_are_drawn_as_words():
    words = "$x_{ \\frac{ \u4e2d\u6587 \U0001f600 \x00 % ^ $ " + "very long indeed " * 200
    view = a_trace(
        episodes=[words] * 30, tokens=list(range(0, 3100, 100)), J=[0.5] * 31,
        question=words,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = trace.annotated_trace(view)
        ax.figure.draw_without_rendering()
    said = [t.get_text() for t in ax.texts]
    assert any("21 more episodes" in line for line in said)
    assert any(line.startswith("$x_{ \\frac{ \u25a1\u25a1 \u25a1") for line in said)
    assert ax.figure.get_figheight() < 9
    bar = min(p.get_window_extent().x0 for p in ax.patches if p.get_facecolor()[0] < 0.25)
    lines = [t for t in ax.texts if t.get_fontfamily() == ["DejaVu Sans Mono"]]
    assert max(t.get_window_extent().x1 for t in lines) < bar  # words end before the bars


def test_the_curve_of_a_trace_holds_each_J_until_the_next_boundary():
    view = a_trace()
    (ax,) = trace.annotated_trace(view).child_axes
    curve, stop = ax.get_lines()
    np.testing.assert_array_equal(curve.get_xydata(), list(zip(view.tokens, view.J, strict=True)))
    assert curve.get_drawstyle() == "steps-post"
    assert set(stop.get_xdata()) == {view.tokens[view.stop_at]}


def test_a_trace_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="k \\+ 1 tokens and J"):
        a_trace(J=[0.1])
    with pytest.raises(ValueError, match="k >= 1"):
        a_trace(episodes=[])


@pytest.mark.parametrize("stem", [s for s in CASES if s != "annotated_trace"])
@pytest.mark.parametrize("fault", ["none", "empty", "column"])
def test_a_table_that_cannot_be_drawn_is_refused(stem, fault):
    table, *others = CASES[stem][0]
    bad = {"none": None, "empty": table.iloc[:0], "column": table[[table.columns[0]]]}[fault]
    with pytest.raises(ValueError, match="empty|is missing"):
        getattr(plotting, stem)(bad, *others)


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="no look for method 'mrt'"):
        episodes.progress_by_episode(some_progress().assign(method="mrt"))
    with pytest.raises(ValueError, match="several K"):
        estimators.exact_against_sampled(some_pairs().assign(answers=range(400)))
    with pytest.raises(ValueError, match="quantity must be one of"):
        training.learning_curves(some_steps().assign(quantity="loss"))
    with pytest.raises(ValueError, match="no rows of metric 'regret'"):
        budget.headline(RESULTS[RESULTS["metric"] == "accuracy"], C0)
    with pytest.raises(ValueError, match="empty"):
        style.save(plt.figure(), "x", pd.DataFrame(), tmp_path)


def test_no_torch_and_no_effect_on_import():
    script = (
        "import matplotlib, sys; before = dict(matplotlib.rcParams)\n"
        "import mrtlib.plotting\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()),"
        " before == dict(matplotlib.rcParams))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          cwd=style.STYLE.parents[2], check=True)  # fmt: skip
    assert done.stdout.split() == ["[]", "True"]


def test_differences_to_outcome_are_points_with_their_intervals():
    table = some_differences()
    axes = plotting.study_differences(table)
    assert [ax.get_xlabel() for ax in axes] == [f"{m}, points" for m in table["measure"].unique()]
    row = table[(table["measure"] == "regret") & (table["set"] == "larger")].iloc[0]
    (points, _, (bars,)) = axes[2].containers[1]
    assert points.get_xdata()[0] == pytest.approx(100 * row["estimate"])
    ends = np.sort([x for x, _ in bars.get_segments()[0]])
    assert ends == pytest.approx([100 * row["low"], 100 * row["high"]])
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == [LABELS[m] for m in METHODS[2:]]


@pytest.mark.parametrize("dpi", [72, 100, 150, 300])
def test_the_columns_of_the_page_stay_apart_on_screens_too(dpi):
    words = "8 * 7 = 56, need 46. " * 20
    examples = [replace(some_examples()[0], episodes=[words], wasted=[False])] * 3
    fig = plotting.reasoner_page(some_card(), some_losses(), examples)
    fig.set_dpi(dpi)
    fig.draw_without_rendering()
    texts = [text for text in fig.subfigs[1].texts if text.get_text().strip()]
    columns = [[t for t in texts if t.get_position()[0] == x]
               for x in sorted({t.get_position()[0] for t in texts})]  # fmt: skip
    assert len(columns) == 3
    for left, right in itertools.pairwise(columns):
        ends = max(t.get_window_extent().x1 for t in left)
        assert ends < min(t.get_window_extent().x0 for t in right) - 0.02 * dpi
