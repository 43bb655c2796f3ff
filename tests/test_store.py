"""Records: schemas that refuse what does not fit, and files that outlive a cut-off run."""

import errno
import json
import math
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrtlib import store
from mrtlib.config import ROOT, as_json, load_profile
from mrtlib.evaluation.votes import maj_at_k
from mrtlib.shards import Shards, complete
from mrtlib.store import DamagedError, StoreError, content_key

SAMPLE = {"method": "base", "seed": 0, "level": "three", "problem": "p1", "sample": 0}


def progress_row(j: int = 1, **changes) -> dict:
    row = {"j": j, "tokens": 7 * j, "estimator": "exact", "answers": 0, "right": 0, "J": 0.5,
           "low": 0.5, "high": 0.5, "progress": 0.1, "kind": "forced", "boxed": None}  # fmt: skip
    return SAMPLE | row | changes


def rollout_row(**changes) -> dict:
    row = {"prompt_ids": [1, 2], "token_ids": np.array([3, 4, 5]), "text": "a \\boxed{ 1}",
           "trace_tokens": 2, "closed": True, "ended": False, "truncated": False,
           "answer": None, "correct": np.bool_(False), "boundaries": (1, 2),
           "episodes": np.int64(2)}  # fmt: skip
    return SAMPLE | row | changes


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "new" / "rollouts.parquet"
    store.write_table(path, "rollouts", [rollout_row(), rollout_row(answer="1", sample=1)])
    table = store.read_table(path, "rollouts")
    assert [list(ids) for ids in table["token_ids"]] == [[3, 4, 5]] * 2
    assert table["answer"].tolist() == [None, "1"]
    assert table["boundaries"][0].dtype == np.int32
    assert table["correct"].dtype == bool
    assert set(table.columns) == set(store.SCHEMAS["rollouts"].names)


@pytest.mark.parametrize("name", store.SCHEMAS)
def test_no_rows_still_make_a_table_of_the_schema(tmp_path, name):
    store.write_table(tmp_path / "t.parquet", name, [])
    table = store.read_table(tmp_path / "t.parquet", name)
    assert list(table.columns) == store.SCHEMAS[name].names and len(table) == 0


def test_a_missing_answer_is_none_and_votes_for_nothing(tmp_path):
    """A NaN would be an answer that many rollouts agree on."""
    shards = Shards(tmp_path, "rollouts")
    shards.write("a", [rollout_row(), rollout_row(sample=1)])
    shards.write("b", [rollout_row(answer="1", correct=True), rollout_row(answer="2")])
    answers = shards.read(["a", "b"])["answer"].tolist()
    assert answers == [None, None, "1", "2"]
    assert maj_at_k(answers, [False, False, True, False], 4) == 0.5
    assert shards.read([])["answer"].tolist() == []


def test_a_level_may_have_any_name(tmp_path):
    (tmp_path / "t.csv").write_text("level,low\nNA,\nnone,0.5\n")
    table = store.read_csv(tmp_path / "t.csv")
    assert table["level"].tolist() == ["NA", "none"]
    assert table["low"].isna().tolist() == [True, False]


def test_a_csv_holds_no_digit_that_hangs_on_the_order_of_a_sum(tmp_path):
    path, noise = tmp_path / "t.csv", 0.1 + 0.2 - 0.3
    table = pd.DataFrame({"name": ["a", "b"], "x": [0.1 + 0.2, noise], "y": [-noise, -0.0],
                          "count": [3, 2_000_000], "tokens": [1234.5678, math.inf]})  # fmt: skip
    store.write_csv(path, table)
    assert path.read_bytes() == b"name,x,y,count,tokens\na,0.3,0,3,1234.57\nb,0,0,2000000,inf\n"
    store.write_csv(path, pd.DataFrame({"x": [2e-12, None]}))  # small, but more than rounding
    assert path.read_bytes() == b'x\n2e-12\n""\n'


def test_what_was_read_can_be_written_again(tmp_path):
    path = tmp_path / "t.parquet"
    rows = [progress_row(0, progress=None), progress_row(1)]
    store.write_table(path, "progress", rows)
    first = store.read_table(path, "progress")
    store.write_table(path, "progress", first.to_dict("records"))
    assert store.read_table(path, "progress").equals(first)
    assert np.isnan(first["progress"][0])


@pytest.mark.parametrize(
    ("column", "value"),
    [("tokens", 1.5), ("tokens", True), ("tokens", None), ("J", "0.5"), ("J", True),
     ("J", float("nan")), ("kind", 3), ("method", None), ("progress", "none")],
)  # fmt: skip
def test_a_mistyped_value_is_refused_by_name(tmp_path, column, value):
    with pytest.raises(StoreError, match=rf"row 1 .*column '{column}' needs"):
        rows = [progress_row(), progress_row(**{column: value})]
        store.write_table(tmp_path / "t.parquet", "progress", rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["ab", [1.0], [None], [-1], [2**31], 5])
def test_mistyped_token_ids_are_refused(tmp_path, value):
    with pytest.raises(StoreError, match="column 'token_ids' needs"):
        store.write_table(tmp_path / "t.parquet", "rollouts", [rollout_row(token_ids=value)])


def test_missing_and_unknown_columns_are_refused_by_name(tmp_path):
    row = progress_row()
    del row["J"]
    with pytest.raises(StoreError, match="column 'J' is missing"):
        store.write_table(tmp_path / "t.parquet", "progress", [row])
    with pytest.raises(StoreError, match="column 'jay' is unknown"):
        store.write_table(tmp_path / "t.parquet", "progress", [progress_row(jay=1)])
    with pytest.raises(StoreError, match="unknown schema 'regrets'"):
        store.write_table(tmp_path / "t.parquet", "regrets", [])


def test_a_file_of_another_schema_is_refused_by_name(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"method": ["base"], "seed": ["0"]}), path)
    with pytest.raises(StoreError, match="column 'seed' needs int64, has string"):
        store.read_table(path, "steps")
    pq.write_table(pa.table({"method": ["base"]}), path)
    with pytest.raises(StoreError, match="column 'seed' needs int64, has no such column"):
        store.read_table(path, "steps")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist; run"):
        store.read_table(tmp_path / "t.parquet", "steps")
    with pytest.raises(StoreError, match="does not exist; run"):
        store.read_json(tmp_path / "t.json")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_shard_is_reported_not_skipped(tmp_path, damage):
    shards = Shards(tmp_path, "progress")
    for key in "abc":
        shards.write(key, [progress_row(j) for j in range(50)])
    path, data = shards.path("b"), bytearray(shards.path("b").read_bytes())
    if damage == "flipped":
        data[len(data) // 8] ^= 0xFF
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(damage, data))
    with pytest.raises(StoreError, match=r"1 shards .* run the command[\s\S]*b\.parquet"):
        shards.read_all()
    assert not shards.has("b"), "what is damaged is put aside, or it would never be made anew"
    assert (tmp_path / "damaged" / "b.parquet").is_file()
    assert len(shards.read_all()) == 100


def test_a_disk_that_fails_for_a_moment_puts_no_good_file_aside(tmp_path, monkeypatch):
    shards = Shards(tmp_path, "progress")
    shards.write("a", [progress_row(0)])

    def fails(path):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fails)
        with pytest.raises(StoreError, match="cannot be read now") as error:
            store.read_table(shards.path("a"), "progress")
        assert not isinstance(error.value, DamagedError)
        assert shards.whole("a")
    assert len(shards.read_all()) == 1 and not (tmp_path / "damaged").exists()


def test_a_temporary_file_may_be_gone_when_it_is_looked_at(tmp_path, monkeypatch):
    gone = tmp_path / ".a.parquet.1.tmp"
    monkeypatch.setattr(Path, "glob", lambda *_: [gone])  # another process has just renamed it
    assert Shards(tmp_path, "progress").directory == tmp_path


def test_two_machines_with_one_process_number_write_one_file(tmp_path, monkeypatch):
    temporary = []
    monkeypatch.setattr(os, "replace", lambda source, _: temporary.append(source))
    for _ in range(2):
        store.write_text(tmp_path / "keys.json", "{}")
    assert len(set(temporary)) == 2


def test_a_flipped_byte_never_changes_a_number_unnoticed(tmp_path):
    path = tmp_path / "t.parquet"
    store.write_table(path, "progress", [progress_row(j, J=j / 40) for j in range(40)])
    whole, data = store.read_table(path, "progress"), path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with suppress(DamagedError):
            assert store.read_table(path, "progress").equals(whole), f"byte {at}"


def test_a_sealed_file_is_plain_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    store.write_table(path, "progress", [progress_row(j) for j in range(40)])
    assert pq.read_table(path).column("j").to_pylist() == list(range(40))
    assert store.SEAL in path.read_bytes()


def test_a_file_from_before_there_were_seals_is_read(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(store.to_table("progress", [progress_row()], "here"), path)
    assert store.read_table(path, "progress")["j"].tolist() == [1]


@pytest.mark.parametrize("table", ["rollouts", "progress"])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "flipped", "deleted"])
def test_a_part_that_is_damaged_in_any_table_is_made_anew(tmp_path, capsys, table, damage):
    tables = {name: Shards(tmp_path / name, name) for name in ("rollouts", "progress")}
    made = []

    def make(i: int) -> dict:
        made.append(i)
        return {"rollouts": [rollout_row(sample=i)], "progress": [progress_row(sample=i)]}

    complete(tables, ["a", "b", "c"], make, "toy")
    path = tables[table].path("b")
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        at = len(whole) // 2
        path.write_bytes({"cut": whole[:at], "zeroed": bytes(len(whole)),
                          "flipped": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]}[damage])
    complete(tables, ["a", "b", "c"], make, "toy")
    assert made == [0, 1, 2, 1]
    assert path.read_bytes() == whole
    said = f"{path} is damaged or not whole: put aside as {tmp_path / table / 'damaged'}"
    assert (said in capsys.readouterr().out) == (damage != "deleted")
    assert len(tables[table].read_all()) == 3, "what was put aside is not read"


WORKER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import progress_row
from mrtlib.shards import Shards, complete
folder, keys = Path(sys.argv[2]), sys.argv[3].split(",")

def make(i):
    with open(folder / "made", "a") as stream:
        stream.write(f"{i} {os.getpid()}\\n")
    time.sleep(0.4)
    return {"progress": [progress_row(sample=i)]}

complete({"progress": Shards(folder / "progress", "progress")}, keys, make, "toy")
"""


def worker(folder, keys) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(ROOT / "tests"), str(folder), ",".join(keys)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def made(folder) -> list[tuple[int, int]]:
    """Return which parts were begun, and by whom."""
    path = folder / "made"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [tuple(map(int, line.split())) for line in lines]


def test_reading_records_leaves_no_thread_that_may_abort_the_end_of_a_process(tmp_path):
    rows = [progress_row(sample=i) for i in range(9)]
    store.write_table(tmp_path / "a.parquet", "progress", rows)
    code = (
        "import sys; from pathlib import Path; import psutil\n"
        "from mrtlib.store import read_table\n"
        "before = psutil.Process().num_threads()\n"
        "rows = read_table(Path(sys.argv[1]), 'progress')\n"
        "print(len(rows), psutil.Process().num_threads() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", "0"]


def test_two_processes_divide_the_parts_of_one_work(tmp_path):
    both = [worker(tmp_path, "abcdefgh") for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert sorted(i for i, _ in made(tmp_path)) == list(range(8))
    assert {who for _, who in made(tmp_path)} == {one.pid for one in both}
    assert len(Shards(tmp_path / "progress", "progress").read(list("abcdefgh"))) == 8


def test_a_part_that_another_process_holds_is_waited_for(tmp_path):
    both = [worker(tmp_path, "a") for _ in range(2)]
    said = "".join(one.communicate(timeout=60)[0] for one in both)
    assert [i for i, _ in made(tmp_path)] == [0]
    assert "is at work on a in" in said and "waiting for it" in said and "process " in said


def test_a_process_that_is_killed_costs_the_part_that_it_was_at(tmp_path):
    first, second = worker(tmp_path, "abcd"), worker(tmp_path, "abcd")
    deadline = time.monotonic() + 60
    while not any(who == first.pid for _, who in made(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    first.wait()
    lost = [i for i, who in made(tmp_path) if who == first.pid][-1]
    assert second.wait(60) == 0
    begun = [i for i, _ in made(tmp_path)]
    assert sorted(begun) == sorted([0, 1, 2, 3, lost])
    assert len(Shards(tmp_path / "progress", "progress").read(list("abcd"))) == 4


def test_a_run_that_was_cut_off_goes_on_from_what_it_has(tmp_path):
    work, done = [content_key(problem=i) for i in range(5)], []

    def run(stop: int) -> None:
        shards = Shards(tmp_path, "progress")
        for key in work:
            if len(done) == stop:
                return
            if not shards.has(key):
                shards.write(key, [progress_row(sample=work.index(key))])
                done.append(key)

    run(stop=2)
    with pytest.raises(StoreError, match="3 shards"):
        Shards(tmp_path, "progress").read(work)
    run(stop=99)
    assert done == work
    assert Shards(tmp_path, "progress").read(work)["sample"].tolist() == [0, 1, 2, 3, 4]


def test_shards_of_other_settings_stay_out(tmp_path):
    shards = Shards(tmp_path, "progress")
    old, new = content_key(budget=100), content_key(budget=160)
    shards.write(old, [progress_row(J=0.1)])
    shards.write(new, [progress_row(J=0.9)])
    assert shards.read([new])["J"].tolist() == [0.9]
    assert shards.keys() == sorted([old, new])
    with pytest.raises(StoreError, match="content_key"):
        shards.has("../elsewhere")


def test_leftover_temporary_files_are_ignored_and_old_ones_removed(tmp_path):
    old, new = tmp_path / ".a.parquet.1.tmp", tmp_path / ".b.parquet.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half a fi")
    os.utime(old, (time.time() - 2 * store.STALE_SECONDS,) * 2)
    shards = Shards(tmp_path, "progress")
    assert not old.exists() and new.exists(), "a young one may belong to a live writer"
    assert shards.keys() == [] and shards.read_all().empty


def test_a_full_disk_is_explained_and_harms_nothing(tmp_path, monkeypatch):
    shards = Shards(tmp_path, "progress")
    shards.write("a", [progress_row(J=0.25)])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for key in ("a", "b"):
        with pytest.raises(StoreError, match=rf"{key}\.parquet: No space left.*Free space"):
            shards.write(key, [progress_row(J=0.75)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet"]
    assert shards.read_all()["J"].tolist() == [0.25]


def test_a_file_that_really_cannot_grow_harms_nothing(tmp_path):
    script = """
import resource, sys
from mrtlib import store
store.write_text(sys.argv[1], "old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store.write_text(sys.argv[1], "x" * 100_000)
"""
    path = tmp_path / "t.csv"
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert f"StoreError: cannot write {path}: File too large. Free space" in done.stderr
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        store.write_text(tmp_path / "file" / "t.csv", "")


def test_keys_depend_on_values_alone():
    key = content_key(model="m", budgets=[1, 2], t=0.5)
    assert key == content_key(t=0.5, budgets=(1, 2), model="m")
    assert len({key, content_key(model="m", budgets=[2, 1], t=0.5), content_key(model="m")}) == 3
    assert len(key) == 32
    for value in (float("nan"), np.int64(1), object()):
        with pytest.raises(StoreError, match="plain JSON"):
            content_key(value=value)


def test_manifest_records_what_the_run_was_made_from(tmp_path):
    root = tmp_path / "repo"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.txt").write_text("abc")
    (tmp_path / "far.bin").write_bytes(b"")
    made = store.manifest(as_json(load_profile("smoke")), "k", [0, 1],
                          [root / "data", tmp_path / "far.bin"], root, "reproduce")  # fmt: skip
    store.write_json(root / "manifest.json", asdict(made))
    text = (root / "manifest.json").read_text()
    read = json.loads(text)
    assert read["config"]["name"] == "smoke" and read["seeds"] == [0, 1]
    assert read["hashes"]["data/a.txt"].startswith("ba7816bf8f01cfea")
    assert read["hashes"]["far.bin"].startswith("e3b0c44298fc1c14")
    assert read["versions"]["pyarrow"] == pa.__version__
    assert read["versions"]["python"].count(".") == 1  # a patch of Python changes no result
    assert str(tmp_path) not in text
    store.write_json(root / "again.json", asdict(made))
    assert (root / "again.json").read_text() == text


def test_json_refuses_nan_and_explains_damage(tmp_path):
    path = tmp_path / "t.json"
    with pytest.raises(StoreError, match="without NaN"):
        store.write_json(path, {"x": float("nan")})
    path.write_text("{")
    with pytest.raises(StoreError, match="cannot be read as JSON"):
        store.read_json(path)
    store.write_json(path, {"b": 1, "a": [2]})
    assert store.read_json(path) == {"a": [2], "b": 1}
