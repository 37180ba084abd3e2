"""One typed configuration: defaults, headrace.toml, the running stack's addresses, HEADRACE_SECTION__KEY of the environment, in this order.

Read once at an entry point (`load`) and passed down. The only file that reads environment variables.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from headrace.connections import PREFIX, ConfigError, Kafka, Registry, Rpc, Section
from headrace.lake.place import Place
from headrace.library import Lake
from headrace.quality import Quality
from headrace.sampling import Samples
from headrace.sections import keys, keys_known, known, shown

if sys.version_info >= (3, 11):
    import tomllib
else:  # CPython 3.10
    import tomli as tomllib


class Stack(Section):
    """The local stack."""

    data_dir: Path = Field(Path(".headrace"), description="Logs, Kafka's data, shards and snapshots of the local stack.")
    restarts_max: int = Field(20, description="Restarts of one role within ten minutes before the supervisor gives up on it.")


class Flink(Section):
    """Flink; `external` true: an existing session cluster at `url`."""

    url: str = "http://127.0.0.1:19088"
    external: bool = False
    parallelism: int = 1
    slots: int = 8
    taskmanager_mb: int = 2048
    jobmanager_mb: int = 768
    state_backend: Literal["hashmap", "rocksdb"] = Field("hashmap", description="hashmap: on the heap, fast; rocksdb: larger windows.")
    bundle_time_ms: int = Field(20, description="python.fn-execution.bundle.time: the latency of a Python stage.")
    batch_rows: int = Field(1024, description="python.fn-execution.arrow.batch.size.")
    train_batch_rows: int = Field(256, description="Rows of one push; smaller learns fresher, larger faster.")
    checkpoint_ms: int = 5000
    secrets_dir: str = Field("", description="Folder on every host of an external cluster with what `headrace connect secrets` writes.")
    marks_dir: str = Field("", description="Folder on the workers' hosts for marks of what they touch, which outlive a dead worker; empty: "
                                           "DATA_DIR/marks, of an external cluster its temporary folder.")


class Features(Section):
    """The feature service (one shard for now)."""

    address: str = "127.0.0.1:19120"
    http_port: int = 19170
    ring_length: int = Field(1 << 22, description="Offsets a source partition that the applied ring remembers; a multiple of 4096.")
    half_life_s: float = Field(86400.0 * 7, description="Half-life of decayed counts.")
    log_bytes: int = Field(256 << 20, ge=1 << 20, description="Log of changes that is kept before rows are written; a start after a kill"
                           " reads it, about a second for the default.")
    rows_bytes: int = Field(64 << 20, ge=1 << 20, description="Memory of the rows of each family: users, items, each entity of definitions."
                            " What is not in it is read from disk.")
    idle_s: float = Field(0.0, ge=0, description="Who was without an event for so long, by event time, is as new, and twice as long, is"
                          " deleted: users, items, entities of definitions; 0: nobody.")
    definitions: list[Path] = Field([], description="Files of feature definitions, .toml or .py, kept beside the built-in features.")


class Ps(Section):
    """Training shards of the parameter server, one process an address."""

    addresses: list[str] = Field(["127.0.0.1:19100", "127.0.0.1:19101"])
    http_ports: list[int] = Field([19150, 19151])
    standbys: list[str] = Field([], description="An address a shard, or none: of the process that follows it and takes over when it is"
                                                " silent; on another host, if it is to survive one.")
    standby_http_ports: list[int] = Field([], description="Health and metrics of these.")
    acknowledge_s: float = Field(1.0, gt=0, description="How long a push waits for the standby before the shard goes on without it.")
    takeover_s: float = Field(3.0, gt=0, description="Of silence, after which a standby that has everything takes over.")
    ring_length: int = Field(1 << 22, description="Offsets a source partition that the applied ring remembers; a multiple of 4096.")
    rows_max: int = Field(20_000_000, description="Rows a table that address space is reserved for; memory is used as rows come.")
    publish_ms: int = Field(50, description="How often changed rows go to weights.MODEL.")
    snapshot_s: float = Field(60.0, description="How often a snapshot is taken and the log cut.")
    snapshot_deltas: int = Field(3, ge=0, description="After a full snapshot so many hold only the rows pushed since it; 0: each is full.")
    staleness_max: int = Field(0, ge=0, description="Pushes that a shard may have applied between the pull that a gradient is of and its"
                                                    " own push; beyond it the trainer pulls again; 0: no bound.")
    durability: Literal["os", "fsync"] = Field("os", description="A push is answered when the operating system has it in the log (a kill"
                                               " loses nothing), or when the disk has it (nor does a power failure).")
    log_bytes_max: int = Field(4 << 30, ge=0, description="Of a shard's log: beyond it a snapshot is made at once, and pushes wait; 0:"
                                                          " no bound.")

    @property
    def reachable(self) -> list[str]:
        """What an rpc Client is given for each shard: its address, or those of its two members."""
        pairs = zip(self.addresses, self.standbys, strict=bool(self.standbys))
        return [f"{first}|{second}" for first, second in pairs] or self.addresses


class Replica(Section):
    """Serving replicas, one process an address: each folds weights.MODEL, weights only."""

    addresses: list[str] = Field(["127.0.0.1:19110"], description="Process i serves shard i % replica.shards: there are as many copies of"
                                                                  " each shard as the addresses divided by replica.shards.")
    http_ports: list[int] = Field([19160])
    shards: int = Field(1, ge=1, le=64, description="Serving shards, each with a part of the rows; any number of them, whatever ps has.")

    @model_validator(mode="after")
    def _fits(self) -> Replica:
        if not self.addresses or len(self.addresses) % self.shards:
            raise ValueError(f"{len(self.addresses)} addresses for {self.shards} shards: each shard needs as many copies as the others")
        return self

    @property
    def copies(self) -> list[list[str]]:
        """Addresses of a whole model each, in the order of the shards."""
        return [self.addresses[at : at + self.shards] for at in range(0, len(self.addresses), self.shards)]

    @property
    def names(self) -> list[str]:
        """Of the processes."""
        return ["replica"] if len(self.addresses) == 1 else [f"replica-{i}" for i in range(len(self.addresses))]


class Ann(Section):
    """Vectors by nearness."""

    address: str = "127.0.0.1:19130"
    http_port: int = 19180


class Engine(Section):
    """The HTTP front: events, recall, recommendations."""

    url: str = "http://127.0.0.1:19080"
    candidates: int = Field(200, description="Candidates that recall hands to ranking.")
    heartbeat_ms: int = Field(100, description="How often event time is moved on in every partition of interactions.")
    heartbeat_lag_ms: int = Field(
        1000, ge=0, description="How far behind the clock now heartbeats lie under the strategy eager: an event may reach Kafka so much"
        " later than it is dated and is not late. Only negatives wait for it; under wait, where every sample would, it is 0.")
    event_bytes_max: int = Field(65536, description="Largest event accepted.")
    requests_max: int = Field(256, ge=1, description="Requests answered at once; others get 503 and Retry-After.")
    keys_file: Path | None = Field(None, description="Hashes of API keys (headrace keys): each caller then needs one. Addresses other than"
                                   " loopback ask for it, and for TLS.")
    tls_cert: Path | None = Field(None, description="PEM of the certificate and its chain; engine.url is then https.")
    tls_key: Path | None = Field(None, description="PEM of its private key.")
    tls_ca: Path | None = Field(None, description="PEM of the authority that our own commands trust; by default the system's.")
    key_file: Path | None = Field(None, description="The API key that our own commands send (replay, demo, verify).")


class Watch(Section):
    """River as a peer on a share of the live stream, and its detectors of drift on ours; needs headrace[watch]."""

    enabled: bool = Field(False, description="Part of the local stack; the demo has it where River is installed.")
    http_port: int = 19190
    share: float = Field(0.25, gt=0, le=1, description="Share of exposures watched, by hash of their causes.")
    rate_max: float = Field(1000.0, ge=1, description="Exposures a second at most.")


class Versions(Section):
    """Published versions of the served model, and the guard of the watch role, which steps back to them and returns."""

    guard: bool = Field(True, description="Publish versions, step back and return by itself, wherever the watch role runs (watch.enabled).")
    every_s: float = Field(3600.0, gt=0, description="How often a version is published while live is within its bounds.")
    keep: int = Field(6, ge=2, description="Versions that the guard keeps of its own, dense where they are new; each is scored on every"
                                           " watched sample.")
    interval_s: float = Field(30.0, gt=0, description="How often the guard decides: at most one change in it.")
    window_s: float = Field(300.0, gt=0, description="Length of the window that it judges by, at least.")
    samples_min: int = Field(2000, ge=100, description="Samples of the window, at least: a quiet stream is judged by a longer one.")
    patience: int = Field(3, ge=1, description="Intervals in turn out of bounds before it acts; half as many when a detector has found a"
                                               " drift of the loss.")
    return_after: int = Field(10, ge=1, description="Intervals in turn that live's shadow must have been better before it"
                                                   " is served again.")
    entropy_rise: float = Field(0.05, gt=0, description="Bound of live's log-loss, as a share of the base rate's, above what it was.")
    calibration: float = Field(1.5, gt=1, description="Bound of live's predicted over true positives, and one over it.")
    base_rate_shift: float = Field(0.4, gt=0, description="Bound of the base rate from what it was, in log-odds: beyond it labels are not"
                                                          " believed.")
    better: float = Field(0.01, ge=0, description="Share of log-loss that a version must have less, on the same samples, to be stepped to.")
    memory_s: float = Field(21600.0, gt=0, description="Half-life of what is remembered as normal.")


class Model(Section):
    """The model that is trained and served."""

    name: Literal["fm", "lr"] = "fm"
    target: str = Field("", description="Target that it learns, of samples.target and [samples.also]; empty: samples.target.")
    version: int = 1
    factors: int = 8
    optimizer: Literal["adagrad", "ftrl", "sgd", "momentum", "adam"] = "adagrad"
    learning_rate: float = 0.05
    l2: float = Field(0.005, description="L2 on the factors of the features present in a sample.")
    window_offsets: int = Field(16384, ge=256, description="Offsets of interactions a window of the progressive metrics spans.")
    transforms: list[dict[str, Any]] = Field([], description="Slots made of the feature set's numbers and slots: tables of bucket, scale"
                                             " or cross (docs/models.md).")
    init_scale: float = Field(0.01, description="Standard deviation of a new row's factors.")
    clip_value: float = Field(0.0, ge=0, description="Bound of each coordinate of a gradient; 0 is none.")
    clip_norm: float = Field(0.0, ge=0, description="Bound of the norm of a row's gradient; 0 is none.")
    weight_bound: float = Field(0.0, ge=0, description="Bound of each weight; 0 is none.")
    weights_dtype: Literal["float32", "float16", "int8"] = Field("float32", description="How served weights travel to replicas; int8: with"
                                                                 " a scale a row.")
    admission: Literal["none", "exact", "bloom"] = Field("none", description="Who gets a row: all, or who is counted admit_after times.")
    admit_after: int = Field(2, ge=1, le=255, description="Pushes of a feature until it gets a row, under an admission.")
    ttl_s: int = Field(0, ge=0, description="Event time after its last push at which a row goes; 0 is never.")
    bytes_max: int = Field(0, ge=0, description="Memory of its rows on a shard, at which the least recently pushed go; 0: ps.rows_max rows,"
                           " and then pushes are refused.")

    @property
    def room(self) -> dict[str, Any]:
        """What ps/spec.py bounds, and how it is served."""
        bounds = self.model_dump(include={"clip_value", "clip_norm", "weight_bound", "admission", "admit_after", "ttl_s", "bytes_max"})
        return {**bounds, "encoding": self.weights_dtype}


MODELS: tuple[str, ...] = get_args(Model.model_fields["name"].annotation)


class Config(Section):
    stack: Stack = Stack()
    kafka: Kafka = Kafka()
    registry: Registry = Registry()
    flink: Flink = Flink()
    rpc: Rpc = Rpc()
    features: Features = Features()
    ps: Ps = Ps()
    replica: Replica = Replica()
    ann: Ann = Ann()
    engine: Engine = Engine()
    watch: Watch = Watch()
    lake: Lake = Lake()
    versions: Versions = Versions()
    quality: Quality = Quality()
    samples: Samples = Samples()
    model: Model = Model()
    models: dict[str, Model] = Field({}, description="trained beside it on the same samples, not served.")

    @property
    def lake_place(self) -> Place:
        """Where the sample library lies."""
        return self.lake_at()

    def lake_at(self, where: str | None = None) -> Place:
        """Where a lake lies that is named, by default the stack's."""
        return self.lake.place(self.stack.data_dir / "lake", where)

    @property
    def trained(self) -> list[Model]:
        """Every model that is trained, the served one first."""
        return [self.model, *self.models.values()]

    def target_of(self, name: str | None = None) -> str:
        """What the model of that name learns, by default the served one."""
        one = next(model for model in self.trained if name in (None, model.name))
        return one.target or self.samples.target


def load(path: str | Path | None = None, *, environ: dict[str, str] | None = None, stack: bool = True) -> Config:
    """The configuration of this process. `path` None: headrace.toml of the working directory, when there is one.

    `stack`: also take the addresses that a running local stack wrote to DATA_DIR/stack.json. Raises ConfigError.
    """
    environ = dict(os.environ) if environ is None else environ
    file = Path(path) if path else Path("headrace.toml")
    if path and not file.exists():
        raise ConfigError(f"{file} does not exist; `headrace config show` prints one to start from")
    values = _toml(file) if file.exists() else {}
    over = _environment(environ)
    config = _build(_merge(values, over), str(file))
    running = config.stack.data_dir / "stack.json"
    if stack and running.exists():
        addresses = json.loads(running.read_text()).get("config", {})
        config = _build(_merge(_merge(values, addresses), over), str(running))
    return config


def show(config: Config) -> str:
    """`config` as a headrace.toml with a comment above each key."""
    lines: list[str] = []
    for section, body in config:
        if section != "models":
            lines += ["", *shown(section, body)]
    lines += ["", f"# [models.NAME], with the keys of [model]: {Config.model_fields['models'].description}"]
    for name, model in config.models.items():
        lines += [f"[models.{name}]", *keys(model)]
    return "\n".join(lines).strip() + "\n"


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from None


def _environment(environ: dict[str, str]) -> dict[str, Any]:
    """HEADRACE_PS__ADDRESSES='["..."]' -> {"ps": {"addresses": [...]}}."""
    values: dict[str, Any] = {}
    for name, text in environ.items():
        if name.startswith(PREFIX) and "__" in name:
            section, key = name[len(PREFIX) :].lower().split("__", 1)
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = text
            values.setdefault(section, {})[key] = value
    return values


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _build(values: dict[str, Any], where: str) -> Config:
    for section, body in values.items():
        known(section, list(Config.model_fields), where, "section")
        if not isinstance(body, dict):
            raise ConfigError(f"{where}: {section} is a section, write [{section}]")
        if section != "models":
            keys_known(section, type(getattr(Config(), section)), body, where)
    try:
        config = Config(**{**values, "models": _models(values, where)})
        if config.ps.standbys and len(config.ps.standbys) != len(config.ps.addresses):
            raise ConfigError(f"{where}: ps.standbys has {len(config.ps.standbys)} addresses, and there are {len(config.ps.addresses)}"
                              " shards: one each or none")
        made = [one.name for one in config.samples.targets]
        for model in config.trained:
            if model.target not in ("", *made):
                raise ConfigError(f"{where}: model {model.name} learns target {model.target!r}, and samples are made of {', '.join(made)}:"
                                  " name one of these, or make it one by [samples.also.NAME]")
        return config
    except ValidationError as error:
        first = error.errors()[0]
        got = "" if "secret" in first["msg"] else f", got {first['input']!r}"
        raise ConfigError(f"{where}: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}{got}") from None


def _models(values: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """[models.NAME] sections, each with its name."""
    served = values.get("model", {}).get("name", Model().name)
    named: dict[str, dict[str, Any]] = {}
    for name, body in values.get("models", {}).items():
        known(f"models.{name}", [f"models.{known}" for known in MODELS], where, "section")
        if not isinstance(body, dict):
            raise ConfigError(f"{where}: models.{name} is a section, write [models.{name}]")
        for key in body:
            known(f"models.{name}.{key}", [f"models.{name}.{k}" for k in Model.model_fields], where, "key")
        if name == served:
            raise ConfigError(f"{where}: models.{name} is the served model already, by model.name: leave [models.{name}] out")
        if body.get("name", name) != name:
            raise ConfigError(f"{where}: models.{name}.name is {body['name']!r}: the section names the model, leave it out")
        named[name] = {**body, "name": name}
    return named
