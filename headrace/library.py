"""The section [lake] of the configuration: the sample library's place, and when its writer commits."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from headrace.connections import Section
from headrace.lake.errors import BadRange
from headrace.lake.place import Place, bucket_of, is_url


class Lake(Section):
    """The sample library: the topic samples as Parquet files, each sample once (docs/lake.md)."""

    enabled: bool = Field(False, description="Its writer is part of the local stack.")
    dir: Path | str | None = Field(None, description="Its folder, by default DATA_DIR/lake; or s3://BUCKET/PREFIX of an object store, with"
                                   " headrace[s3]. Credentials are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile's.")
    endpoint: str = Field("", description="HTTP address of the object store; by default AWS_ENDPOINT_URL, or Amazon's.")
    region: str = Field("", description="Of the object store; by default AWS_REGION, or the profile's.")
    profile: str = Field("", description="Of ~/.aws, that credentials are taken from; by default AWS_PROFILE.")
    commit_s: float = Field(60.0, gt=0, description="A commit is made so long after its first record.")
    rows_max: int = Field(100_000, ge=1, description="Rows that wait at most for a commit.")
    bytes_max: int = Field(128 << 20, ge=1, description="Memory of these.")
    ring_length: int = Field(1 << 22, ge=4096, multiple_of=4096, description="Offsets of interactions, a partition and target, within which"
                             " a sample's duplicate is known by a bit; beyond it the files are asked. A multiple of 4096.")
    care_s: float = Field(86_400.0, ge=0, description="How often the writer's process makes one file of the small ones of each closed hour,"
                          " as `headrace data compact` does; 0: never.")
    keep_days: float = Field(0.0, ge=0, description="Samples of an event time so long before the newest one go then; 0: none.")
    http_port: int = 19195

    @field_validator("dir", mode="after")
    @classmethod
    def _placed(cls, given: Path | str | None) -> Path | str | None:
        if not isinstance(given, str):
            return given
        if not is_url(given):
            return Path(given)
        try:
            bucket_of(given)
        except BadRange as error:
            raise ValueError(str(error)) from None
        return given

    def place(self, default: Path, where: str | None = None) -> Place:
        """Of `where` if it is given, else of `dir`, else `default`."""
        return Place(where or str(self.dir or default), self.endpoint, self.region, self.profile)
