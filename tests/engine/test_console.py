"""The pages: what they show, who may see it, what they say when somebody is away, and what of them reaches a browser."""

import hashlib
import re
import threading
from html.parser import HTMLParser

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from headrace.engine.console import assets, drawing, panels
from headrace.engine.console.pages import PAGES
from headrace.engine.console.routes import scopes
from headrace.engine.console.sampler import Away
from headrace.engine.keys import SCOPES, Keys, create
from headrace.live.freshness import HOP_MS
from headrace.rpc.freshness import Hop, Newest
from tests.engine.console import NAMES, ODD, Console, now_ms

WEIGHT_MAX = 300_000
OURS = ("theme.js", "charts.js", "page.js", "page.css", "icon.svg")
SPACES = {"http://www.w3.org/2000/svg"}


@pytest.fixture
def console(world):
    console = Console(world)
    yield console
    console.close()


class Tags(HTMLParser):
    """Every element with its attributes; `text` of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inline, self._within = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag):
        self._within = None

    def handle_data(self, data):
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


def test_the_shell_holds_no_data_nothing_inline_and_nothing_from_elsewhere(console):
    answer = console.http.get("/")
    policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff" and policy["frame-ancestors"] == "'none'"
    tags = Tags(answer.text)
    assert not tags.inline
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "/")[0] in "/#", (tag, attributes)
    files = [attributes.get("src") or attributes["href"] for tag, attributes in tags.found if tag in ("script", "link")]
    assert len(files) == 8 and all(console.http.get(file).status_code == 200 for file in files)
    assert "u1" not in answer.text and not any(console.looks.values())
    assert [attributes["href"] for tag, attributes in tags.found if tag == "a" and "aria-current" in attributes] == ["/"]


def test_the_navigation_is_made_of_the_pages(console):
    links = [attributes["href"] for tag, attributes in Tags(console.http.get("/").text).found if tag == "a"]
    assert all(page.path in links for page in PAGES)


def test_parts_show_what_the_sources_say(console):
    assert "4,321" in console.part("summary", "4,321") and "<strong>No yesterday" not in console.part("learning", "1,004")
    fresh = console.part("freshness", "above its goal")
    assert fresh.count("within its goal") == 1 and "No event has come this far yet" in fresh and "What goals allow for." in fresh
    flow = console.part("flow", "failing")
    assert "84 ms" in flow and "running" in flow
    assert "251 MB" in console.part("processes", "251 MB")


def test_without_a_yesterday_the_page_says_so(console):
    console.yesterday = False
    assert "The log is young." in console.part("learning", "No yesterday yet.")


def test_curves_are_json_with_gaps_where_nobody_looked(console):
    console.part("learning", "1,004")
    points = console.desk.sampler._points["learning"]
    points.appendleft((now_ms() - 60_000, {"auc": 0.5, "logloss": 0.7}))
    found = console.http.get("/console/series").json()
    assert found["live"]["auc"][:2] == [0.5, None] and found["live"]["auc"][2] == 0.64 and len(found["windows"]) == 5
    assert found["away"] == [] and len({len(column) for column in found["live"].values()}) == 1


def test_rates_are_between_looks():
    points = [(now_ms() - 4000, {"a_written": 100.0}), (now_ms() - 2000, {"a_written": 300.0}), (now_ms(), {"a_written": None})]
    assert panels._rates(points) == {"t": [points[1][0] / 1000, points[2][0] / 1000], "a": [pytest.approx(100, rel=0.01), None]}
    assert panels.rate(points, "a_written") == pytest.approx(100, rel=0.01)
    assert panels.rate(points[:1], "a_written") is None and panels.rate(points, "b_written") is None


def test_the_clock_of_an_old_log_is_said_on_the_page(console, world):
    assert "replayed log" not in console.part("summary", "4,321")
    world.clock.set("log", 890_000_000_000)
    assert "1998-03-15 22:13 UTC" in (said := console.part("summary", "4,321")) and "<code>headrace clock now</code>" in said
    world.wall_ms = now_ms()
    world.clock.leave_log()
    assert "replayed log" not in console.part("summary", "4,321")


@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_is_away_leaves_the_other_panels(console, name):
    console.away[name] = Away("Nobody answers at 10.0.0.1 & <co>, see `headrace status`.")
    said = console.part(name, "Unavailable.")
    assert "10.0.0.1 &amp; &lt;co&gt;, see <code>headrace status</code>" in said
    for other in set(NAMES) - {name}:
        assert "Unavailable." not in console.part(other, "</" + ("ul>" if other == "freshness" else "table>"))
    assert "Not everything can be seen" in console.part("summary", "Not everything can be seen")
    assert console.http.get("/console/series").json()["away"] == [name for name in [name] if name in ("learning", "flow")]


def test_a_source_that_is_broken_is_a_sentence_and_no_traceback(console):
    console.away["flow"] = ValueError("of the code")
    said = console.part("flow", "Unavailable.")
    assert "A defect" in said and "of the code" not in said and "Traceback" not in said


def test_what_was_seen_stays_for_a_while_with_its_hour(console):
    console.part("flow", "failing")
    console.away["flow"] = Away("Gone.")
    said = console.part("flow", "Unavailable.")
    assert "failing" in said and re.search(r"was seen at \d\d:\d\d:\d\d", said)
    console.desk.sampler._readings["flow"] = console.desk.sampler.newest("flow")._replace(at_ms=now_ms() - panels.OLD_MS - 1)
    assert "failing" not in console.part("flow")


def test_a_source_that_hangs_holds_nobody_up(console):
    console.hangs["flow"] = threading.Event()
    assert "Counting in Kafka." in console.part("flow")
    assert console.http.get("/recommend", params={"user": "u1", "preview": 1}).status_code == 200
    console.part("learning", "1,004")
    assert "Counting in Kafka." in console.part("flow") and console.looks["flow"] == 1
    console.hangs["flow"].set()


def test_every_route_asks_for_its_scopes(world, tmp_path):
    file = tmp_path / "keys.json"
    tokens = {one: create(file, one, (one,)) for one in SCOPES}
    tokens["all"] = create(file, "all", SCOPES)
    console = Console(world, Keys(file, look_s=0.0))
    try:
        for path, wanted in scopes().items():
            posts = path in [part.path for page in PAGES for part in page.parts if part.posts]
            ask = console.http.post if posts else console.http.get
            assert ask(path).status_code == (200 if not wanted else 401), path
            for name, token in tokens.items():
                answer = ask(path, headers={"Authorization": f"Bearer {token}"})
                allowed = name == "all" or {name} >= set(wanted)
                assert answer.status_code == (200 if allowed else 403), (path, name, answer.text)
        answer = console.http.get("/console/user", headers={"Authorization": f"Bearer {tokens['control']}"})
        assert "/console/user needs recommend" in answer.json()["error"] and answer.json()["next"]
        assert set(scopes()["/console/click"]) == {"control", "recommend", "events"} and set(scopes()["/console/series"]) == {"control"}
    finally:
        console.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:1234", "10.0.0.5:1234", "localhost.evil.example", ""])
def test_a_name_that_was_made_to_point_here_sees_nothing(world, tmp_path, host):
    """DNS rebinding: to the browser such a page is of one origin with the engine. Keys tell it apart, a loopback without keys the name."""
    console = Console(world)
    for path in ("/", "/console/flow", "/console/series", "/console/list?user=u1", "/recommend?user=u1", "/metrics"):
        answer = console.http.get(path, headers={"Host": host})
        assert answer.status_code == 403 and "under this machine's own names only" in answer.json()["error"]
    for path in ("/console/click", "/events"):
        assert console.http.post(path, headers={"Host": host}).status_code == 403
    assert not any(console.looks.values()) and not console.world.sent
    for near in ("localhost:9", "[::1]:1234", "127.3.2.1", "a.localhost", "headrace:8700", "host.docker.internal:1"):
        assert console.http.get("/console/flow", headers={"Host": near}).status_code == 200
    console.close()
    token = create(tmp_path / "keys.json", "a", SCOPES)
    console = Console(world, Keys(tmp_path / "keys.json"))
    assert console.http.get("/console/flow", headers={"Host": host, "Authorization": f"Bearer {token}"}).status_code == 200
    console.close()


@pytest.mark.parametrize("path", ["list", "user"])
def test_what_is_typed_is_escaped(console, path):
    text = console.part(path, user=ODD, item=ODD)
    assert "&lt;script&gt;" in text and "<script" not in text


def test_what_sources_name_is_escaped(console):
    for path in ("processes", "users"):
        assert "<script" not in console.part(path, "&lt;script&gt;")


@pytest.mark.parametrize("user", ["", "  ", "u" * 257, "\udcff"])
def test_an_id_that_is_none_is_a_sentence(console, user):
    answer = console.http.get("/console/list?user=" + "".join(f"%{byte:02x}" for byte in user.encode("utf-8", "surrogatepass")))
    assert answer.status_code == 200 and ("Give the user&#39;s id" in answer.text or "Unavailable" not in answer.text)
    if "\udcff" not in user:
        assert "Give the user&#39;s id" in answer.text


def test_a_user_is_explained(console):
    text = console.part("user", user="u1")
    assert text.count("<details") == 8 and "8 from nearness of vectors" in text and "item_id=i28" in text and "User u1" in text
    assert "Item i3 and the context" in console.part("user", user="u1", item=" i3 ")
    assert "u2 has no vector yet" in console.part("user", user="u2") and not console.world.impressions
    console.world.stop("replica")
    assert "Unavailable." in console.part("user", user="u1")


def test_no_name_on_the_page_is_made_up(console):
    """What templates and scripts ask for is there, and so is the metric that the panel of freshness reads."""
    routes = {route.path for route in console.app.routes}
    texts = [file.read_text() for file in drawing.FOLDER.iterdir()] + [(assets.FOLDER / name).read_text() for name in OURS]
    asked = {path for text in texts for path in re.findall(r"[\"'](/(?:console|openapi)[\w./]*)", text)}
    assert {"/console/series", "/console/click", "/console/flow", "/openapi.json"} <= asked <= routes
    assert scopes().keys() <= routes
    hop, registry = Hop("vector"), CollectorRegistry()
    registry.register(hop)
    hop.observe(Newest(1, 0, 0, now_ms() - 70))
    assert f"{HOP_MS}{{" in generate_latest(registry).decode()


def test_all_of_it_is_light_and_ours(console):
    files = assets.assets()
    shell = len(console.http.get("/").content) + sum(len(console.part(path)) for path in NAMES)
    assert sum(len(file.body) for file in files.values()) + shell < WEIGHT_MAX
    for name, file in files.items():
        if name != "THIRD-PARTY.md":
            text = re.sub(rb"^/\*!.*?\*/", b"", file.body).decode()  # a licence names its author's page
            assert set(re.findall(r"https?://[^\s\"'`)<]+", text)) <= SPACES, name
            assert "sourceMappingURL" not in text and "@import" not in text
    for file in drawing.FOLDER.iterdir():
        assert "://" not in file.read_text(), file


def test_what_others_made_is_as_they_published_it():
    named = (assets.FOLDER / "THIRD-PARTY.md").read_text()
    others = {file.name: file for file in assets.FOLDER.iterdir() if file.name not in (*OURS, "THIRD-PARTY.md")}
    assert len(others) == 3
    for name, file in others.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() in named, name


def test_files_are_kept_by_browsers_and_data_is_not(console):
    file = assets.assets()["page.css"]
    assert "immutable" in console.http.get(file.href).headers["cache-control"]
    assert console.http.get("/console/flow").headers["cache-control"] == "no-store"
    assert console.http.get("/console/static/none.js").status_code == 404


def test_an_engine_without_sources_has_no_page(world):
    assert world.http.get("/").status_code == 404


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out(theme):
    """Texts by WCAG AA, 4.5 to 1; curves and borders of fields 3 to 1."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", (assets.FOLDER / "page.css").read_text())
    colours = {name: luminance((light, dark)[theme]) for name, light, dark in found}

    def contrast(one, other):
        low, high = sorted((colours[one], colours[other]))
        return (high + 0.05) / (low + 0.05)

    for ground in ("bg", "surface", "raised"):
        for text in ("ink", "muted", "accent", "good", "bad"):
            assert contrast(text, ground) >= 4.5, (text, ground)
    for text, ground in (("accent", "tint"), ("good", "good-tint"), ("bad", "bad-tint"), ("ink", "good-tint"), ("muted", "good-tint"),
                         ("on-accent", "accent")):
        assert contrast(text, ground) >= 4.5, (text, ground)
    for curve in ("model", "popularity", "yesterday", "fourth", "strong"):
        assert contrast(curve, "surface") >= 3, curve
