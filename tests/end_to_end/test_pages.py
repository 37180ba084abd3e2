"""The commands in the blocks of docs/, taken from the pages and typed against one stack: in order, each page's own. What stands for the
reader's own (FILE, DIR) is filled in; what another test runs, or lasts for minutes, is left out by name."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from headrace import ports
from headrace.config import Config
from tests.end_to_end.conftest import addresses, environment, headrace, with_free_ports
from tests.end_to_end.outside import until

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "headrace verify ps": "test_verify_ps.py", "headrace bench world": "tests/headrace/test_bench.py",
    "headrace data get movielens-100k": "test_accounts.py, and it needs a network",
    "headrace replay .headrace/data/movielens-100k": "test_accounts.py",
    "headrace features backfill": "test_definitions.py: it takes a service that came back with more definitions",
}


def lines_of(page, block=None):
    """The commands of a page's blocks, comments and what is optional taken away; `block`: only of the blocks in which that text is."""
    found = []
    for kind, body in FENCE.findall((DOCS / page).read_text()):
        if kind in ("", "bash") and (block is None or block in body):
            for line in body.splitlines():
                command = re.sub(r"\[[^\]]*\]", "", line.removeprefix("$ ").split(" #")[0]).strip()
                if command.startswith("headrace ") and not any(command.startswith(one) for one in ELSEWHERE):
                    found.append(re.sub(r"\s+", " ", command))
    assert found, f"{page} has no commands"
    return found


class Reader:
    """Types commands in a folder, with a stack on ports of its own."""

    def __init__(self, folder):
        self.folder, self.more = folder, addresses(with_free_ports(Config()))
        self.more |= {"HEADRACE_LAKE__ENABLED": "true", "HEADRACE_LAKE__COMMIT_S": "1"}
        self.typed = []

    def types(self, line, **filled):
        for word, value in filled.items():
            line = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", str(value), line)
        self.typed.append(line)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=environment(**self.more), text=True,
                              capture_output=True, timeout=300, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    def emits(self, *events):
        done = headrace("emit", cwd=self.folder, stdin="\n".join(map(json.dumps, events)), **self.more)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    made = Reader(tmp_path_factory.mktemp("reader"))
    try:
        made.types("headrace up --detach")
        made.types("headrace jobs submit")
        yield made
    finally:
        headrace("down", cwd=made.folder, **made.more)


def event(name, user, item, action):
    return {"event_id": name, "user_id": user, "item_id": item, "action": action}


def test_the_runbook_follows_an_event_and_comes_back_after_the_night(reader):
    reader.emits(event("e1", "ann", "film-1", "impression"), event("e2", "ann", "film-1", "click"))
    trace, = lines_of("runbook.md", "headrace trace e2")
    until(lambda: "vectors" in (said := reader.types(trace)) and "not yet" not in said, "all of e2's way")
    for line in lines_of("runbook.md", "headrace down"):
        reader.types(line)
    assert "no dead letters" in reader.types("headrace dead-letters list")


def test_the_sample_library(reader):
    reader.emits(*(event(f"{action}-{n}", "eve", f"film-{n}", action) for n in range(3) for action in ("impression", "click")))
    until((reader.folder / ".headrace/lake/manifests/00000001.json").exists, "the first commit")
    until(lambda: all(f"impression-{n}" in reader.types("headrace samples export now.csv && cat now.csv") for n in range(3)), "the samples")
    shutil.copytree(reader.folder / ".headrace" / "lake", reader.folder / "copy")
    for line in lines_of("lake.md", "headrace samples"):
        reader.types(line, ID="impression-1", COPY="copy")
    assert {row["name"]: row["state"] for row in json.loads(reader.types("headrace status --json"))}["lake"] == "ready"


def test_dead_letters(reader):
    reader.emits(event("lost", "bob", "film-9", "click"))  # nobody has seen it
    until(lambda: "no_exposure" in reader.types("headrace dead-letters list"), "the dead letter")
    topic, partition, offset = json.loads(reader.types("headrace dead-letters list --json"))[0]["example"].split()
    for line in lines_of("dead-letters.md", "headrace dead-letters"):
        reader.types(line.replace("PARTITION:OFFSET", f"{partition}:{offset}"), TOPIC=topic, PARTITION=partition, OFFSET=offset)


def test_a_file_is_guessed_checked_and_replayed(reader):
    rows = ["member,product,rating,when"] + [f"m{n % 40},p{n * 7 % 90},{n % 5 + 1},{1_700_000_000 + 60 * n}" for n in range(800)]
    (reader.folder / "mine.csv").write_text("\n".join(rows) + "\n")
    for line in lines_of("replay.md", "--guess"):
        live = " --clock now" if "--guess" not in line else ""  # the page's own goes by the file's times, into a stack of its own
        reader.types(line + live, FILE="mine.csv")


def test_features_of_your_own(reader):
    page = (DOCS / "definitions.md").read_text()
    (reader.folder / "features.toml").write_text(next(body for kind, body in FENCE.findall(page) if kind == "toml" and "[feature." in body))
    (reader.folder / "features.py").write_text(next(body for kind, body in FENCE.findall(page) if kind == "python"))
    (reader.folder / "own.csv").write_text("u,i,t,y,genre,author\n" + "".join(
        f"m{n % 9},p{n % 7},{1_700_000_000 + 60 * n},{n % 3 == 0:d},war|drama,a{n % 4}\n" for n in range(200)))
    (reader.folder / "own.toml").write_text('time_unit = "s"\n[columns]\nuser_id = "u"\nitem_id = "i"\nts = "t"\nlabel = "y"\n'
                                            'action = "click"\n[item]\nfields = ["genre", "author"]\n')
    for line in lines_of("definitions.md"):
        reader.types(line.replace("FILE", "own.csv").replace("MAPPING.toml", "own.toml"))
    reader.types("headrace features list --definitions features.toml --definitions features.py")
    (reader.folder / "own").mkdir()
    (reader.folder / "own" / "headrace.toml").write_text("\n".join(body for kind, body in FENCE.findall(page) if "transforms = [" in body))
    shutil.copy(reader.folder / "features.toml", reader.folder / "own")
    shutil.copy(reader.folder / "features.py", reader.folder / "own")
    reader.types("cd own && headrace offline ../own.csv --mapping ../own.toml --json figures.json")


def test_versions_of_the_model(reader):
    for line in lines_of("ps.md", "headrace models publish"):
        if line == "headrace models rollback":
            line += " 1"  # there is one version so far, and live is not newer than it
        reader.types(line)
    assert "live" in reader.types("headrace models list")


def test_simulated_users(reader):
    for line in lines_of("simulator.md", "headrace simulate --list"):
        reader.types(line, DIR="world", **{"2000": "60", "120": "30"} if "--live" in line else {"1000": "50", "2000": "80"})


def test_another_number_of_shards(reader):
    for line in lines_of("ps.md", "headrace ps backup"):
        reader.types(line.replace("/mnt/cold/headrace", "cold"))
    for line in lines_of("ps.md", "headrace ps reshard"):
        if line.startswith("headrace up"):
            six = ports.some_free(6)
            reader.more |= {"HEADRACE_PS__ADDRESSES": json.dumps([f"127.0.0.1:{port}" for port in six[:3]]),
                            "HEADRACE_PS__HTTP_PORTS": json.dumps(six[3:])}
        reader.types(line)
    assert reader.types("headrace ps stats --json").count('"unsnapshotted"') == 3


def test_what_is_left_out_is_on_a_page():
    text = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    assert all(name in text for name in ELSEWHERE)
