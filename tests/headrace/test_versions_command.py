"""`headrace models` and the watch role's guard over shards and replicas behind Flight in this process."""

import builtins
import json
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest

from headrace.cli import main
from headrace.config import Config
from headrace.features.layout import SLOTS, F
from headrace.ports import any_free
from headrace.ps.publish import Publisher
from headrace.ps.replica import Replica
from headrace.ps.service import shard_verbs
from headrace.ps.versioned import Versioned
from headrace.ps.versions import LIVE
from headrace.roles import watch
from headrace.rpc.client import Client
from headrace.serve import specs
from headrace.streaming.model_inputs import inputs_of
from headrace.versions import Versions, told
from headrace.watch.downgrade import Bounds, Step
from headrace.watch.keeper import Keeper
from headrace.watch.shadow import Shadow
from tests.models.worlds import causes_of
from tests.ps import worlds

SPEC = specs([Config().model])[0]
KEYS = np.arange(1, 200, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
CLICK = "click"


class Small:
    """One shard and one replica of the configured model, and a headrace.toml that names them."""

    def __init__(self, folder):
        self.folder, self.turn, self.closing, self.clients = folder, 0, [], []
        self.store = self.entered(worlds.store(folder / "ps" / "0", [SPEC], rows_max=20_000))
        self.shard, owner = self.entered(worlds.served(shard_verbs(self.store)))
        self.store.turn = owner.call
        self.follower = Replica([SPEC], 1, 20_000, lambda: 1)
        self.versioned = Versioned(self.follower, [SPEC], folder / "versions", 20_000, lambda: time.time_ns() // 1_000_000)
        self.replica, self.owner = self.entered(worlds.served(self.versioned.verbs()))
        self.sent = []
        self.publisher = Publisher(self.store.shard, lambda topic, key, record: self.sent.append(record), lambda: 1)
        (folder / "headrace.toml").write_text(
            f'[ps]\naddresses = ["127.0.0.1:{self.shard.port}"]\nhttp_ports = [1]\nrows_max = 20000\n'
            f'[replica]\naddresses = ["127.0.0.1:{self.replica.port}"]\n[stack]\ndata_dir = "{folder}"\n')

    def entered(self, context):
        self.closing.append(context)
        return context.__enter__()

    def client(self, server):
        made = Client(server.address, 5.0)
        self.clients.append(made)
        return made

    def learn(self, keys=KEYS, bend=0.0):
        self.turn += 1
        grads = np.random.default_rng(self.turn).normal(bend, 1, (len(keys), 2 * 9)).astype(np.float32)
        grads[:, 9:] = grads[:, :9] ** 2
        self.store.shard.push("fm", CLICK, causes_of([self.turn]), {"weights": (keys, grads)})
        self.publisher.run_pass()
        self.owner.call(lambda: self.follower.fold_many(self.sent))
        return self.store.shard.pull("fm", "weights", keys)

    def close(self):
        for client in self.clients:
            client.close()
        for context in reversed(self.closing):
            context.__exit__(None, None, None)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = Small(tmp_path)
    yield made
    made.close()


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["models", *arguments])
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


def test_publish_list_rollback_pin_and_resume(small, capsys):
    held = small.learn()
    code, out, _ = run(capsys, "list")
    assert code == 0 and "no version was published yet" in out and "live fm; nothing else was ever chosen" in out
    code, out, _ = run(capsys, "publish", "--note", "the first")
    assert code == 0 and out.startswith("version 1 of fm: 199 rows")
    later = small.learn()
    code, out, _ = run(capsys, "rollback")
    assert (code, out) == (0, "version 1 of fm is served (before: live)\n")
    client = small.client(small.replica)
    header, arrays = client.call("pull", {"model": "fm", "table": "weights"}, {"keys": KEYS})
    assert header["version"] == 1 and np.array_equal(arrays["values"], held) and header["sequence"] == 1
    run(capsys, "publish")
    code, out, _ = run(capsys, "pin", "live", "--note", "hold it")
    assert (code, out) == (0, "live of fm is served, pinned (before: version 1)\n")
    assert np.array_equal(client.call("pull", {"model": "fm", "table": "weights"}, {"keys": KEYS})[1]["values"], later)
    code, out, err = run(capsys, "list")
    assert "the first" in out and "live of fm, pinned" in out and "hold it" in out and f"replica {small.replica.address} serves live" in out
    code, out, err = run(capsys, "resume")
    assert code == 0 and "the guard decides" in out and "no guard runs here" in err
    code, out, _ = run(capsys, "list", "--json")
    found = json.loads(out)
    assert [one["version"] for one in found["versions"]] == [1, 2] and found["serving"]["version"] == 0 and not found["serving"]["pinned"]
    assert [one["event"] for one in found["events"]] == ["published", "serving", "published", "serving", "resumed"]
    assert found["versions"][0]["rows"] == {"weights": 199} and found["replicas"][small.replica.address] == {"version": 0, "trouble": ""}


def test_wrong_ones_are_told_in_a_sentence(small, capsys):
    assert run(capsys, "rollback")[::2] == (2, "error: no version of fm is older than the one that is served (live); none was published:"
                                              " `headrace models publish` makes one\n")
    small.learn()
    run(capsys, "publish")
    for arguments, code, text in ((("pin", "7"), 2, "there is no version 7 of fm; there are 1, and live"),
                                  (("pin", "newest"), 2, "'newest' is no version"),
                                  (("publish", "--model", "lr"), 2, "no model 'lr' is trained; trained are fm")):
        assert run(capsys, *arguments)[0] == code, arguments
        assert text in run(capsys, *arguments)[2]
    broken = small.folder / "versions" / "fm" / "1" / "weights.00-07.values"
    broken.write_bytes(broken.read_bytes()[:-4] + b"abcd")
    code, _, err = run(capsys, "rollback", "1")
    assert code == 1 and "none does, and nothing has changed" in err and "weights.00-07.values" in err
    (small.folder / "versions" / "fm" / "1" / "manifest.json").unlink()
    code, _, err = run(capsys, "list")
    assert code == 0 and "version 1" in err and "no manifest.json" in err


def test_without_a_stack(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text(f'[ps]\naddresses = ["127.0.0.1:{any_free()}"]\nhttp_ports = [1]\n'
                                            f'[replica]\naddresses = ["127.0.0.1:{any_free()}"]\n[stack]\ndata_dir = "{tmp_path}"\n')
    code, _, err = run(capsys, "publish")
    assert code == 1 and "nothing was published" in err and "`headrace up` starts them" in err
    code, out, _ = run(capsys, "list")
    assert code == 0 and "does not answer" in out


def test_the_sentence_of_status(small, capsys):
    small.learn()
    run(capsys, "publish")
    run(capsys, "pin", "1", "--note", "while we look")
    said = told(small.folder / "versions", "fm")
    assert said.startswith("serving: version 1 of fm, pinned") and said.endswith("while we look") and "chosen by person" in said
    (small.folder / "versions" / "fm" / "serving.json").write_text("no")
    assert "not readable" in told(small.folder / "versions", "fm")


def exposure(offset, key):
    keys, values = np.zeros(F, np.uint64), np.zeros(F, np.float32)
    keys[:], keys[SLOTS.index("bias")], values[SLOTS.index("bias")] = np.arange(F) + 10_000, key, 1.0
    return {"source": 3, "partition": 1, "offset": offset, "action": "impression", "feature_keys": keys.tobytes(), "numbers": b"",
            "feature_values": values.tobytes()}


def sample(offset, label, target=CLICK):
    return {"source": 3, "partition": 1, "offset": offset, "target": target, "label": float(label)}


def test_scores_are_settled_by_cause_and_late_ones_are_not():
    now, taken = [1000], []
    shadow = Shadow(lambda batch: {LIVE: np.full(len(batch), 0.5, np.float32), 3: np.full(len(batch), 0.25, np.float32)},
                    lambda label, scores: taken.append((label.tolist(), {n: one.tolist() for n, one in scores.items()})),
                    inputs=inputs_of(), target=CLICK, share=1.0, rate_max=100, now_ms=lambda: now[0], clock_s=lambda: 0.0)
    shadow.expose([(0, exposure(n, 1)) for n in range(4)])
    shadow.settle([(1000, sample(0, 1)), (2000, sample(1, 0)), (2000, sample(9, 1)), (2000, sample(2, 1, "like")), (999, sample(3, 1))])
    assert taken == [([1.0, 0.0], {0: [0.5, 0.5], 3: [0.25, 0.25]})]
    assert shadow.outcomes == {"scored": 2, "capped": 0, "failed": 0, "late": 1}
    shadow.settle([(2000, sample(0, 1))])  # once
    assert len(taken) == 1
    shadow.expose([(0, exposure(n, 1)) for n in range(10, 150)])
    assert shadow.outcomes["capped"] == 44


class Held:
    """A keeper over `small`, its guard replaced by a list of what it says."""

    def __init__(self, small, says):
        self.small, self.says, self.now_ms, self.seen = small, says, 1_000_000, []
        versions = Versions(small.folder / "versions", SPEC, [small.client(small.replica)], lambda: self.now_ms)
        client = small.client(small.replica)

        def pull(keys, version):
            header = {"model": "fm", "table": "weights"} | ({} if version is None else {"version": version})
            answer, arrays = client.call("pull", header, {"keys": keys})
            return answer["version"], arrays["values"]

        from headrace.models.catalog import MODELS

        self.versions = versions
        self.keeper = Keeper(versions, SPEC, MODELS["fm"](inputs_of().fields), pull, [small.client(small.shard)],
                             Bounds(keep=2), {}, 20_000, lambda: self.now_ms, inputs_of())
        self.keeper.guard.tick = self.tick

    def tick(self, now_s, serving, pinned, there):
        self.seen.append((serving, pinned, sorted(there)))
        return self.says.pop(0) if self.says else []

    def turn(self, *steps):
        self.now_ms += 30_000
        self.says.append([Step(kind, version, f"because {kind}", {"x": 1.0}) for kind, version in steps])
        self.keeper.tick()
        return self.seen[-1]


def test_the_keeper_does_what_the_guard_says_and_notes_it(small):
    small.learn()
    held = Held(small, [])
    assert held.turn(("publish", 0)) == (0, False, [])
    small.learn()
    assert held.turn(("publish", 0), ("good", 1)) == (0, False, [1])
    assert held.turn(("alarm", 0), ("serve", 2)) == (0, False, [1, 2])
    assert held.versions.choice().version == 2 and held.keeper.downgrades == 1
    assert held.turn(("serve", 1)) == (2, False, [1, 2]) and held.keeper.downgrades == 2
    assert held.turn(("serve", 0)) == (1, False, [1, 2]) and held.keeper.downgrades == 2  # a return is none
    events = [(one["event"], one["version"], one["by"]) for one in held.versions.events()]
    assert events == [(name, number, "guard") for name, number in (
        ("published", 1), ("published", 2), ("good", 1), ("alarm", 0), ("serving", 2), ("serving", 1), ("serving", 0))]
    assert held.versions.events()[4]["figures"]["x"] == 1.0 and held.versions.events()[4]["reason"] == "because serve"
    assert Held(small, []).keeper.downgrades == 2  # counted on, in the next process
    told_ = {sample.name: sample.value for family in held.keeper.collect() for sample in family.samples}
    assert told_["headrace_downgrades_total"] == 2 and told_["headrace_serving_version"] == 0


def test_the_keeper_keeps_few_of_its_own_and_a_persons_for_ever(small):
    small.learn()
    held = Held(small, [])
    held.versions.publish([small.client(small.shard)], "person")
    for _ in range(5):
        held.turn(("publish", 0))
    assert [one.number for one in held.versions.there()[0]] == [1, 2, 6]
    held.turn()
    assert held.seen[-1][2] == [1, 2, 6] and sorted(held.keeper._tables) == [1, 2, 6]


def test_a_step_that_cannot_be_done_is_noted_and_a_broken_version_is_no_candidate(small):
    small.learn()
    held = Held(small, [])
    held.turn(("publish", 0))
    path = small.folder / "versions" / "fm" / "1" / "weights.00-07.keys"
    path.write_bytes(path.read_bytes()[:-8] + b"abcdefgh")
    assert held.turn(("serve", 1)) == (0, False, [])
    assert held.versions.choice().version == LIVE and held.keeper.downgrades == 0
    assert [one["event"] for one in held.versions.events()] == ["published", "unusable", "failed"]
    held.turn()
    assert [one["event"] for one in held.versions.events()].count("unusable") == 1


def test_resume_makes_the_guard_learn_anew_what_is_normal(small):
    small.learn()
    held, learnt = Held(small, []), []
    held.keeper.guard.relearn = lambda: learnt.append(1)
    held.turn(("publish", 0))
    held.turn(("serve", 1))
    held.versions.serve(1, "person", "hold", pinned=True)
    assert held.turn() == (1, True, [1]) and not learnt
    held.versions.resume("person", "go")
    assert held.turn() == (1, False, [1]) and learnt == [1]
    held.turn()
    assert learnt == [1]


def test_every_version_is_scored_on_its_own_rows_while_another_serves(small):
    from headrace.models.batch import from_bytes

    key = int(KEYS[0])
    held, said = Held(small, []), {}
    for number in (1, 2):
        small.learn(bend=1.0)
        said[number] = 1 / (1 + np.exp(-float(small.store.shard.pull("fm", "weights", KEYS[:1])[0, 0])))
        held.turn(("publish", 0))
    small.learn(bend=1.0)
    said[LIVE] = 1 / (1 + np.exp(-float(small.store.shard.pull("fm", "weights", KEYS[:1])[0, 0])))
    record = exposure(1, key)
    batch = from_bytes([record["feature_keys"]], [record["feature_values"]], F)
    held.turn(("serve", 2))
    held.turn()
    found = held.keeper.score(batch)
    assert len({round(one, 4) for one in said.values()}) == 3
    assert {number: float(p[0]) for number, p in found.items()} == pytest.approx(said, abs=1e-6)


def metrics(config):
    return urllib.request.urlopen(f"http://127.0.0.1:{config.watch.http_port}/metrics", timeout=5).read().decode()


@pytest.mark.parametrize("river", [True, False])
def test_the_role_guards_with_and_without_river(small, monkeypatch, river):
    """Exposures and samples in, a version out: published by itself, stepped to when live is spoilt, and shown in /metrics."""
    if river:
        pytest.importorskip("river")
    else:
        really = builtins.__import__

        def without(name, *rest, **more):
            if name.split(".")[0] == "river":
                raise ModuleNotFoundError("No module named 'river'", name="river")
            return really(name, *rest, **more)

        for name in [name for name in sys.modules if name == "headrace.watch.river_peer" or name.split(".")[0] == "river"]:
            monkeypatch.delitem(sys.modules, name)
        import headrace.watch

        monkeypatch.delattr(headrace.watch, "river_peer", raising=False)
        monkeypatch.setattr(builtins, "__import__", without)
    keys = KEYS[:40]
    small.learn(keys)
    config = Config()
    config.stack.data_dir, config.ps.addresses, config.ps.rows_max = small.folder, [small.shard.address], 20_000
    config.replica.addresses, config.replica.http_ports = [small.replica.address], [any_free()]
    config.watch.http_port, config.watch.share, config.watch.rate_max = any_free(), 1.0, 1e6
    short = {"every_s": 0.2, "interval_s": 0.05, "window_s": 0.05, "samples_min": 400, "patience": 2, "return_after": 1000}
    for name, value in short.items():
        setattr(config.versions, name, value)
    rng, places, rate = np.random.default_rng(0), [], {}
    for key in keys.tolist():
        p = 1 / (1 + np.exp(-float(small.store.shard.pull("fm", "weights", np.array([key], np.uint64))[0, 0])))
        rate[key] = p
    queue, lock = [], threading.Lock()

    def exposures(take, stop):
        while not stop.is_set():
            first = len(places)
            chosen = rng.choice(keys, 100)
            places.extend(chosen.tolist())
            take([(0, exposure(first + n, int(key))) for n, key in enumerate(chosen)])
            with lock:
                queue.extend(sample(first + n, rng.random() < rate[int(key)]) for n, key in enumerate(chosen))
            stop.wait(0.005)

    def samples(take, stop):
        while not stop.is_set():
            with lock:
                given, queue[:] = list(queue), []
            take([(2**60, one) for one in given])
            stop.wait(0.005)

    versions = Versions(small.folder / "versions", SPEC, [], lambda: 1)
    stop = watch.start(config, 0, exposures, samples, [SPEC])
    try:
        wait(lambda: any(one["event"] == "good" for one in versions.events()), versions)
        grads = np.zeros((len(keys), 18), np.float32)
        grads[:, 0], grads[:, 9] = np.where(np.arange(len(keys)) % 2, 1e3, -1e3), 1e-6
        small.store.shard.push("fm", CLICK, causes_of([999]), {"weights": (keys, grads)})  # live is spoilt
        small.publisher.run_pass()
        small.owner.call(lambda: small.follower.fold_many(small.sent))
        wait(lambda: versions.choice().version != LIVE, versions)
        client = small.client(small.replica)
        wait(lambda: client.call("pull", {"model": "fm", "table": "weights"}, {"keys": keys})[0]["version"] != LIVE, versions)
        wait(lambda: 'headrace_downgrades_total{model="fm"} 0.0' not in metrics(config), versions)  # counted when it has been done
        page = metrics(config)
        assert 'headrace_downgrades_total{model="fm"}' in page and 'headrace_guard_entropy{model="fm",version="0"}' in page
        assert 'headrace_guard_trouble{model="fm",trouble="inputs"}' in page
        assert ("headrace_watch_samples_total" in page) == river
    finally:
        stop()
    event = next(one for one in versions.events() if one["event"] == "serving")
    assert event["by"] == "guard" and "less log-loss" in event["reason"] and event["figures"]["entropy.live"] > 1


def wait(there, versions):
    until = time.monotonic() + 120
    while not there():
        assert time.monotonic() < until, [(one["event"], one["reason"]) for one in versions.events()]
        time.sleep(0.02)


def test_without_river_and_without_the_guard_it_says_what_to_install(monkeypatch):
    config = Config()
    config.versions.guard = False
    monkeypatch.setitem(sys.modules, "headrace.watch.river_peer", None)
    import headrace.watch

    monkeypatch.delattr(headrace.watch, "river_peer", raising=False)
    with pytest.raises(ModuleNotFoundError):
        watch.start(config, 0, lambda take, stop: None, lambda take, stop: None, [SPEC])
