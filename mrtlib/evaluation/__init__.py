"""Trained models measured and compared: budget sweeps, results, intervals, learning curves.

`sweep` measures one model and keeps records; `results`, `comparison`, `learning` and `votes` make
tables of them; `tables` writes them for readers, `latex` for papers.
"""
