"""The features job: interactions -> features and `enriched`.  flink run -py jobs/features.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.feature_set import feature_set_of, transforms
from headrace.jobs.launch import Job, addresses, marks, run, source, standing
from headrace.streaming import features
from headrace.streaming.featurize import featurize
from headrace.streaming.scoring import Scoring


def job(config: Config) -> Job:
    serving = Scoring(tuple(config.replica.addresses), config.model.name, config.replica.shards, transforms(config.model))
    scoring = serving if config.samples.live else None
    stage = featurize(addresses(config), source(config, "interactions"), config.engine.event_bytes_max, config.flink.external, scoring,
                      marks(config), standing(config, "features", "interactions", "enriched"), feature_set_of(config))
    return Job("features", features.tables, [features.insert()], functions={"featurize": stage})


if __name__ == "__main__":
    run(job)
