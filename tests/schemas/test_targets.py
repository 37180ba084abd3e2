"""Windows of actions, of several targets and where dwell judges clicks."""

import pytest

from headrace.schemas.targets import QUIET, Noise, Target, named, windows

CLICK = Target("click", "click", 1000)
LATE, READ, LIKE = Target("click-late", "click", 9000), Target("read", "dwell", 2000, 5.0), Target("like", "like", 60_000)


def test_an_action_has_the_widest_window_of_its_targets():
    assert windows((CLICK,)) == {"click": 1000}
    assert windows((CLICK, LATE, READ)) == windows((LATE, CLICK, READ), QUIET) == {"click": 9000, "dwell": 2000}


def test_dwell_that_judges_clicks_is_waited_for_as_long_as_anything():
    assert windows((CLICK, READ, LIKE), Noise(accidental_s=1.0)) == {"click": 1000, "dwell": 60_000, "like": 60_000}
    assert windows((CLICK, READ, LIKE), Noise(repeated_ms=1))["dwell"] == 2000


@pytest.mark.parametrize("name", ["", "a b", "1a", "a'", "a" * 65, "click.provisional"])
def test_what_cannot_stand_in_a_statement_or_be_taken_for_another_effect_is_refused(name):
    assert named("click-late_2") == "click-late_2"
    with pytest.raises(ValueError, match="letters, digits"):
        named(name)
