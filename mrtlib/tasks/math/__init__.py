"""Which answers to mathematics are equal: exact forms first, algebra in a worker process.

`equivalence` is the door; the other modules read an answer step by step, from tokens to values.
Everything is bounded in time and size.
"""
