"""The meta-prover mu: a trace is cut at a boundary, its thinking is ended, and mu answers.

`prover.Prover` measures J, the probability that the answer is right, exactly or by sampling.
`probes` says where a trace is cut and how it is ended; `exact` scores reference answers.
"""
