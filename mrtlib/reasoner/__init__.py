"""How the embedded reasoner is made, from nothing and one seed.

`searchers` write wasteful traces over Countdown, `lessons` makes training texts of them, and
`making` trains a small Llama on these.
"""
