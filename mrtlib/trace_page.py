"""A trace as a piece of HTML with an inline SVG, for a notebook or a widget."""

from html import escape

from mrtlib.traces import STOP, TINTS, TraceView, signed, verdict


def trace_html(view: TraceView) -> str:
    """Return the trace as HTML: episodes coloured, J and progress beside them, J(t) under them.

    Everything that a model or a data set wrote is escaped.
    """
    rows = [_row("", "(no thinking)", "#ffffff", view.J[0], "")]
    for j, words in enumerate(view.episodes, 1):
        tint, gained = TINTS[(j - 1) % len(TINTS)], signed(view.progress[j - 1])
        if view.stop_at == j - 1:
            rows.append('<tr style="background:#fff">'
                        f'<td colspan="4" style="color:{STOP};text-align:center;'
                        f'border-top:2px dashed {STOP}">could have stopped here</td></tr>')
        rows.append(_row(str(j), escape(words.strip()), tint, view.J[j], gained))
    return (
        # The class keeps MathJax off the model's dollar signs; colours are set on every row,
        # for JupyterLab's dark theme would else put its own behind black text.
        '<div class="tex2jax_ignore" style="background:#fff;color:#111;padding:8px;'
        'max-width:960px;line-height:1.35">'
        f"<p><b>{escape(verdict(view))}</b></p>"
        f'<p style="white-space:pre-wrap">{escape(view.question)}</p>'
        # Widths are set, for JupyterLab would make the columns of an output equally wide.
        '<table style="border-collapse:collapse;width:100%;color:#111;table-layout:fixed">'
        '<tr style="background:#fff"><th style="width:4%"></th><th></th><th style="width:12%">J'
        f'</th><th style="width:11%">progress</th></tr>{"".join(rows)}</table>{_svg(view)}</div>'
    )  # fmt: skip


def _row(number: str, words: str, tint: str, J: float, gained: str) -> str:
    """Return a table row; `words` are escaped already."""
    bar = f"linear-gradient(90deg,#bbb {100 * J:.0f}%,#eee {100 * J:.0f}%)"
    return (
        f'<tr style="background:#fff"><td style="text-align:right;padding:2px 6px">{number}</td>'
        f'<td style="background:{tint};padding:3px 8px;white-space:pre-wrap;text-align:left;'
        f'font-family:monospace">{words}</td>'
        f'<td style="background:{bar};min-width:60px;text-align:center">{J:.2f}</td>'
        f'<td style="text-align:right;padding:2px 6px">{gained}</td></tr>'
    )


def _svg(view: TraceView) -> str:
    """Return J(t) as an inline SVG: a step at each boundary over the tints of the episodes."""
    wide, high, last = 900, 110, max(view.tokens[-1], 1)
    x = [30 + (wide - 40) * t / last for t in view.tokens]
    y = [5 + high * (1 - J) for J in view.J]
    spans = "".join(
        f'<rect x="{x[j]:.1f}" y="5" width="{x[j + 1] - x[j]:.1f}" height="{high}" '
        f'fill="{TINTS[j % len(TINTS)]}"/>'
        for j in range(len(view.episodes))
    )
    steps = "".join(f"H{a:.1f}V{b:.1f}" for a, b in zip(x[1:], y[1:], strict=True))
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>'
                   for a, b in zip(x, y, strict=True))  # fmt: skip
    stop, base = x[view.stop_at], high + 5
    return (
        f'<svg viewBox="0 0 {wide} {high + 25}" style="width:100%;margin-top:8px" '
        'font-size="11" font-family="sans-serif" role="img"><title>J after each episode</title>'
        f'{spans}<path d="M{x[0]:.1f} {y[0]:.1f}{steps}" fill="none" stroke="#333" '
        f'stroke-width="2"/>{dots}<line x1="{stop:.1f}" x2="{stop:.1f}" y1="5" y2="{base}" '
        f'stroke="{STOP}" stroke-dasharray="4 3"/><text x="4" y="14">J=1</text>'
        f'<text x="4" y="{base}">0</text><text x="{wide - 10}" y="{base + 16}" '
        f'text-anchor="end">{view.tokens[-1]} thinking tokens</text></svg>'
    )
