"""One module a study that a notebook tells. Pure tables and sentences; no picture.

`reasoner_card` (00), `episode_analysis`, `voting` (01), `information_gain`, `estimators` (02) and
`coverage` (04); `claims` is what notebooks assert, `learning_rates` and `benchmark` are commands.
"""
