"""The policy as a model: loading, 4 bits, tokens, sampling, and shared prefixes.

`loading`, `quantization` and `tokens` prepare it; `sampling` and `server` draw from it; `packing`
and `caches` compute a shared prefix once, where `compatibility` finds that the model allows it.
"""
