"""Training with TRL: `methods` says what each form of MRT pays for, `trainer` pays it.

`runs.train` makes one adapter from a profile, a method and a seed. Private names of TRL are in
`trainer` alone.
"""
