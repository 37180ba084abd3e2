"""The section [lake]: a folder or a URL, from a file and from the environment, and no secret in either."""

from pathlib import Path

import pytest

from headrace.config import Config, load, show
from headrace.connections import ConfigError
from headrace.lake.place import Place


def test_a_lake_is_a_folder_unless_it_is_named_by_a_url(tmp_path):
    assert Config().lake_place == Place(".headrace/lake") and not Config().lake_place.remote
    assert load(environ={"HEADRACE_LAKE__DIR": str(tmp_path)}, stack=False).lake.dir == tmp_path
    file = tmp_path / "headrace.toml"
    file.write_text('[lake]\ndir = "s3://bucket/some/lake"\nendpoint = "http://127.0.0.1:9000"\nregion = "here"\nprofile = "ours"\n')
    found = load(file, environ={}).lake_place
    assert found == Place("s3://bucket/some/lake", "http://127.0.0.1:9000", "here", "ours") and found.remote
    file.write_text(show(load(file, environ={})))
    assert load(file, environ={}).lake_place == found
    assert load(file, environ={}).lake_at("s3://other/lake") == found._replace(where="s3://other/lake")
    file.write_text(show(Config()).replace("# dir = (not set)", 'dir = "some/folder"'))
    assert load(file, environ={}).lake.dir == Path("some/folder")


def test_a_url_with_a_secret_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match=r"lake\.dir: .*holds no secret.*AWS_SECRET_ACCESS_KEY") as told:
        load(environ={"HEADRACE_LAKE__DIR": "s3://AKIA:hush@bucket/lake"}, stack=False)
    assert "hush" not in str(told.value)
    with pytest.raises(ConfigError, match="ftp:// is not built"):
        load(environ={"HEADRACE_LAKE__DIR": "ftp://there/lake"}, stack=False)
