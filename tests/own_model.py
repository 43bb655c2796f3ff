"""A study of one's own from nothing: a random Qwen2, its tokenizer, forty problems, a profile.

    python tests/own_model.py FOLDER

makes them in a folder and runs all notebooks with them (`make test-own-model`). The model answers
nothing: it is there to see that nothing depends on how good a model is.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

TEXTS = ["What is 3 + 4? The answer is \\boxed{7}. Wait, let me think. Alternatively, no.\n\n"] * 50
TEXTS += [f"What is {a} + {b}? {a + b}" for a in range(30) for b in range(30)]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROFILE = """\
base = "smoke"

[model]
name = "model"

[data]
family = "math"
folder = "problems"
levels = ["sums"]
train = 24
validation = 8
test = 8

[thinking]
budget = 64
answer_tokens = 24

[evaluation]
budgets = [16, 32, 48, 64]
"""


def write_tokenizer(folder: Path, tags: bool = True):
    """Write a byte-pair tokenizer; its think tags are tokens, or several tokens each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=600, special_tokens=MARKS, initial_alphabet=alphabet, show_progress=False
    ))  # fmt: skip
    if tags:
        pieces.add_tokens(["<think>", "</think>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token=MARKS[2], pad_token=MARKS[0]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_model(folder: Path, tags: bool = True) -> None:
    """Write a random Qwen2 with its tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = write_tokenizer(folder, tags)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )).save_pretrained(folder)  # fmt: skip


def write_problems(folder: Path) -> None:
    """Write forty sums, in three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"p{i}", "family": "math", "level": "sums",
             "question": f"What is {i} + {2 * i + 1}?", "references": [str(3 * i + 1)]}
            for i in range(40)]  # fmt: skip
    for name, part in (("train", rows[:24]), ("validation", rows[24:32]), ("test", rows[32:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def write_all(folder: Path, tags: bool = True) -> Path:
    """Write model, problems and profile into a folder; return the profile's path."""
    write_model(folder / "model", tags)
    write_problems(folder / "problems")
    path = folder / "mine.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


def main(folder: Path) -> None:
    """Make everything, run all notebooks with it, and end with their exit status."""
    path = write_all(folder)
    command = [sys.executable, "-m", "mrtlib", "reproduce", "--profile", str(path)]
    environment = {**os.environ, "MRT_RUNS": str(folder / "runs"), "HF_HUB_OFFLINE": "1"}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
