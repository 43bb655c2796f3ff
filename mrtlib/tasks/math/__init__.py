"""Which answers to mathematics are equal: exact forms first, algebra in a worker process.

`equivalence` is what other rooms use. `tokens`, `algebra`, `evaluation`, `units` and `reading` read
an answer, `equality` compares two, and `worker` decides algebra. All is bounded in time and size.
"""
