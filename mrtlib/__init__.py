"""Meta Reinforcement Fine-Tuning (MRT, arXiv 2503.07572): episodes, progress and regret."""
