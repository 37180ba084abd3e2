"""`headrace ps stats` over shards and a replica behind Flight in this process."""

import contextlib
import json

import numpy as np
import pytest

from headrace.cli import main
from headrace.commands import ps
from headrace.config import Model
from headrace.ports import any_free
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.ps.service import replica_verbs, shard_verbs
from headrace.serve import specs
from tests.ps import worlds

SPEC = worlds.spec(admission="exact", bytes_max=8 << 20)


@pytest.fixture
def stack(tmp_path):
    """(folder with a headrace.toml, the store) of one shard that has learnt a little, a replica, and a second shard that nobody serves."""
    with worlds.store(tmp_path / "ps", [SPEC]) as store:
        for turn in range(3):
            keys = np.arange(10 * turn, 500, dtype=np.uint64)
            store.shard.push("fm", "click", worlds.causes([turn]), {"weights": (keys, np.ones((len(keys), 3), np.float32))})
        store.shard.push("fm", "click", worlds.causes([2]), {})
        follower = Replica([SPEC], 2, 100, lambda: 0)
        with worlds.served(shard_verbs(store)) as (shard, _), worlds.served(replica_verbs(follower)) as (replica, _):
            (tmp_path / "headrace.toml").write_text(
                f'[ps]\naddresses = ["127.0.0.1:{shard.port}", "127.0.0.1:{any_free()}"]\nhttp_ports = [1, 2]\n'
                f'[replica]\naddresses = ["127.0.0.1:{replica.port}"]\n[stack]\ndata_dir = "{tmp_path}"\n')
            yield tmp_path, store


def test_it_says_who_is_there_who_waits_and_who_does_not_answer(stack, monkeypatch, capsys):
    folder, store = stack
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["ps", "stats", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1 and "error: ps-1 does not answer" in said.err
    found = json.loads(said.out)
    assert set(found["processes"]) == {"ps-0", "replica"} and set(found["silent"]) == {"ps-1"}
    stats = found["processes"]["ps-0"]
    weights = stats["models"]["fm"]["tables"]["weights"]
    assert (weights["rows"], weights["admitted"], weights["kept_out"], weights["waiting"]) == (490, 490, 500, 10)
    assert weights["bytes"] <= weights["bytes_max"] == 8 << 20
    assert (stats["pushes"], stats["duplicates"], stats["unsnapshotted"], stats["snapshot_age_s"]) == (4, 1, 3, -1)
    store.snapshot()
    with pytest.raises(SystemExit):
        main(["ps", "stats"])
    said = capsys.readouterr()
    assert "fm/weights" in said.out and "490" in said.out and "0 s old" in said.out and "gaps open" in said.out


def test_other_folders_take_the_place_of_the_shards(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(f'[stack]\ndata_dir = "{tmp_path}"\n[ps]\nrows_max = 5000\nring_length = {worlds.RING}\n')
    keys, grads = np.arange(400, dtype=np.uint64), np.ones((400, 3), np.float32)
    with worlds.store(tmp_path / "ps" / "0", [SPEC]) as store:
        for turn in range(2):
            store.shard.push("fm", "click", worlds.causes([turn]), {"weights": (keys, grads)})
        wanted = store.shard.pull("fm", "weights", keys)
        with pytest.raises(SystemExit) as ended:
            main(["ps", "reshard", "--shards", "3"])
        assert ended.value.code == 2 and "a shard in" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["ps", "reshard", "--shards", "3"])
    said = capsys.readouterr()
    assert ended.value.code == 0 and said.out.startswith("400 rows on 3 shards") and "give 3 addresses" in said.err
    assert (tmp_path / "ps.before-1-shards" / "0" / "spec.json").exists() and not (tmp_path / "ps.being-made").exists()
    found = np.full((400, 3), np.nan, np.float32)
    for i in range(3):
        with worlds.store(tmp_path / "ps" / str(i), [SPEC], i, 3) as store:
            mine = store.shard.tables["fm", "weights"].stored().keys
            found[mine.astype(int)] = store.shard.pull("fm", "weights", mine)
    assert (found == wanted).all()


def test_a_copy_is_made_of_a_running_shard_listed_and_restored(stack, monkeypatch, capsys):
    folder, store = stack
    monkeypatch.chdir(folder)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["ps", *arguments])
        return ended.value.code, capsys.readouterr()

    (folder / "data" / "ps").mkdir(parents=True)
    (folder / "data" / "ps" / "0").symlink_to(folder / "ps")
    given = ("--data", str(folder / "data"))
    code, said = run("backup", str(folder / "cold"), *given)
    assert code == 0 and "1 shards at sequences 3" in said.out and "its newest snapshot is copied" in said.err
    assert store.snapshotted == 3, "it was asked for one"
    code, said = run("backups", str(folder / "cold"), "--json")
    (one,) = json.loads(said.out)
    assert one["sequences"] == [3]
    code, said = run("restore", str(folder / "cold"), *given)
    assert code == 2 and "is not empty" in said.err
    code, said = run("restore", str(folder / "cold"), "--data", str(folder / "other"))
    assert code == 0 and "backfill train" in said.out and "reshard --shards 2" in said.err
    code, said = run("restore", str(folder / "nowhere"), *given)
    assert code == 2 and "no whole copy" in said.err
    with worlds.store(folder / "other" / "ps" / "0", [SPEC]) as other:
        assert other.shard.digest() == store.shard.digest()


def test_digests_say_which_replica_differs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ps, "ASK_S", 0.3)
    (spec,), sent, keys = specs([Model()]), [], np.arange(500, dtype=np.uint64)
    with worlds.store(tmp_path / "ps", [spec]) as store, contextlib.ExitStack() as stack:
        store.shard.push("fm", "click", worlds.causes([1]), {"weights": (keys, np.ones((len(keys), 9), np.float32))})
        Publisher(store.shard, lambda topic, key, record: sent.append(record), lambda: 1).run_pass()
        replicas = [Replica([spec], 1, 5000, lambda: 1) for _ in range(2)]
        served = [stack.enter_context(worlds.served(verbs))[0].port for verbs in (shard_verbs(store), *map(replica_verbs, replicas))]
        (tmp_path / "headrace.toml").write_text(
            f'[ps]\naddresses = ["127.0.0.1:{served[0]}"]\nhttp_ports = [1]\n[stack]\ndata_dir = "{tmp_path}"\n'
            f'[replica]\naddresses = ["127.0.0.1:{served[1]}", "127.0.0.1:{served[2]}"]\n')
        replicas[0].fold_many(sent)

        def run(*arguments):
            with pytest.raises(SystemExit) as ended:
                main(["ps", "stats", "--digests", *arguments])
            return ended.value.code, capsys.readouterr().out

        code, said = run("--json")
        rows = {row["process"]: row for row in json.loads(said)["digests"]}
        assert code == 1 and set(rows) == {"training", "replica-0", "replica-1"} and all(row["still"] for row in rows.values())
        assert rows["replica-0"]["digest"] == rows["training"]["digest"] and rows["replica-0"]["differing"] == 0
        assert (rows["training"]["rows"], rows["replica-1"]["rows"]) == (500, 0) and rows["replica-1"]["differing"] == 64
        code, said = run()
        assert code == 1 and "agrees" in said and "differs in 64 slots" in said
        replicas[1].fold_many(sent)
        code, said = run()
        assert code == 0 and said.count("agrees") == 2
