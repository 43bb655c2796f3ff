"""The first cells of a notebook: its parameters checked, its profile, and its answer on top."""

import ast
from typing import Any

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Markdown, display

from mrtlib.config import Profile, load_profile
from mrtlib.store import write_text

INJECTED = "# Parameters"  # how papermill's cell begins, which comes behind the notebook's own


class ParameterError(ValueError):
    """A parameter of a notebook that it does not have, or of another type."""


def start(name: str) -> Profile:
    """Set a notebook up, and return its profile: figures are shown below their cells.

    Raises:
        ParameterError: papermill passed a parameter that the notebook does not have.
        ProfileError: no such profile, or its values contradict each other.
    """
    shell = get_ipython()
    check_parameters(shell.user_ns["In"] if shell else [])
    profile = load_profile(name)
    plt.ion()
    return profile


def check_parameters(sources: list[str]) -> None:
    """Compare what papermill passed with the parameters of the notebook.

    Args:
        sources: of the cells that ran so far, in their order.

    Raises:
        ParameterError: a name that the notebook does not have, or a value of another type.
    """
    places = [i for i, source in enumerate(sources) if source.startswith(INJECTED)]
    if not places:
        return
    known, given = (_literals(source) for source in sources[places[0] - 1 : places[0] + 1])
    for name, value in given.items():
        if name not in known:
            raise ParameterError(f"no parameter {name!r}; choose one of {', '.join(known)}")
        kinds = (int, float) if type(known[name]) is float else type(known[name])
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            raise ParameterError(f"{name} = {value!r} is of another type than {known[name]!r}")


def _literals(source: str) -> dict[str, Any]:
    """Return the names that a cell gives plain values, and these."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in nodes}


class Answer:
    """A notebook's answer on its first screen: that of the last run, until this one has its own."""

    def __init__(self, profile: Profile, name: str) -> None:
        """Show what is on record.

        Args:
            name: of the notebook.
        """
        self.file = profile.runs / "conclusions" / f"{name}.md"
        text = "No answer is on record yet; it will stand here when the notebook has run."
        if self.file.is_file():
            text = self.file.read_text(encoding="utf-8")
        self.shown = display(Markdown(text), display_id=True)

    def say(self, *paragraphs: str) -> None:
        """Put the answer on the first screen, and on record; empty paragraphs are left out."""
        text = "\n\n".join(filter(None, paragraphs))
        write_text(self.file, text + "\n")
        if self.shown is not None:  # None outside of a notebook
            self.shown.update(Markdown(text))
