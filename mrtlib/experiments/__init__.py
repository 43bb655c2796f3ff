"""One module a study that a notebook tells. Pure tables and sentences; no picture.

`reasoner_card` (00), `episode_analysis`, `voting` (01), `information_gain`, `estimators` (02) and
`coverage` (04), `study` and `study_logs` (06); `claims` is what notebooks assert, `learning_rates`
and `benchmark` are commands, `queue` is what the study's command works off.
"""
