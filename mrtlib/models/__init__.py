"""The policy as a model: loading, 4 bits, tokens, sampling, and prefixes that are computed once.

`loading`, `quantization` and `tokens` prepare it; `sampling` and `server` draw from it; `packing`,
`caches` and `compatibility` share prefixes where a model allows it.
"""
