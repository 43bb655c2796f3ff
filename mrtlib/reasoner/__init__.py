"""How the embedded reasoner is made, from nothing but a seed.

`searchers` writes wasteful traces over Countdown, `lessons` makes training texts of them, and
`making` trains a small Llama on these.
"""
