"""The catalogue of a lake: what it holds, and an object store that does not answer is told by name as any other part."""

from headrace.catalog import entries
from headrace.config import Config
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compact import lake_of, samples


def test_a_lake_on_an_object_store_is_an_entry_and_one_that_is_away_is_silent(bucket, s3, monkeypatch):
    for name in ("_topics", "_features", "_vectors"):
        monkeypatch.setattr(entries, name, lambda config: [])
    for name in ("_shard", "_replica"):
        monkeypatch.setattr(entries, name, lambda *given: lambda config: [])
    config = Config(lake={"dir": f"s3://{bucket}/lake"})
    assert entries.catalog(config) == entries.Catalog([], {}), "there is no lake yet"
    lake_of(config.lake_place, worlds.ListTopic(samples(6)))
    [one] = entries.catalog(config).entries
    assert (one["kind"], one["rows"], one["hours"], one["folder"]) == ("lake", 6, 2, f"s3://{bucket}/lake")
    with s3.away():
        found = entries.catalog(config)
    assert found.entries == [] and "did not list bases" in found.silent["lake"]
