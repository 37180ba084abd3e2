"""Who owns a shard, by any order of what members say: one at a time, and never one that may lack what was acknowledged."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.ps.owners import Owner, Owners, follows
from tests.ps.worlds import ListLog


def said(epoch, member, in_sync, forced=False, shard="0/1"):
    return {"shard": shard, "id": f"{epoch}{member}{in_sync}{forced}", "epoch": epoch, "member": member, "in_sync": in_sync,
            "forced": forced}


def test_the_first_claim_is_taken_and_a_second_of_the_same_epoch_is_not():
    state = follows(None, said(5, "0", False))
    assert state == Owner(5, "0", False)
    assert follows(state, said(5, "0-standby", False)) is None


def test_the_standby_takes_over_only_from_an_owner_that_said_it_is_in_sync():
    alone, together = Owner(5, "0", False), Owner(5, "0", True)
    assert follows(alone, said(9, "0-standby", False)) is None
    assert follows(together, said(9, "0-standby", False)) == Owner(9, "0-standby", False)
    assert follows(alone, said(9, "0-standby", False, forced=True)) == Owner(9, "0-standby", False, True)
    assert follows(alone, said(9, "0", False)) == Owner(9, "0", False), "an owner that starts again"


def test_an_owner_that_was_taken_over_cannot_say_that_it_is_alone():
    """The fence: without its standby's word, and without this, it acknowledges nothing."""
    taken = follows(Owner(5, "0", True), said(9, "0-standby", False))
    assert follows(taken, said(5, "0", False)) is None
    assert follows(taken, said(10, "0", False)) is None, "nor come back as the owner: it is not in sync with the new one"


SAID = st.builds(said, st.integers(1, 6), st.sampled_from(["0", "0-standby"]), st.booleans())


@given(st.lists(SAID, max_size=30))
def test_epochs_never_go_back_and_ownership_moves_only_when_in_sync(records):
    state = None
    for record in records:
        after = follows(state, record)
        if after is None:
            continue
        if state is not None:
            assert after.epoch >= state.epoch
            assert after.member == state.member or (state.in_sync and after.epoch > state.epoch)
        state = after


@given(st.lists(SAID, max_size=30), st.integers(0, 30))
def test_whoever_reads_the_log_in_whatever_pieces_sees_the_same_owner(records, cut):
    log = ListLog()
    early = Owners(log, "0/1")
    for number, record in enumerate(records):
        log.append({**record, "id": str(number)})
        log.append({**record, "id": f"other {number}", "shard": "1/2"})
        if number == cut:
            early.now()
    assert early.now() == Owners(log, "0/1").now()


def test_a_member_knows_whether_it_was_taken_though_another_says_the_same():
    log = ListLog()
    first, second = Owners(log, "0/1"), Owners(log, "0/1")
    assert first.say(Owner(5, "0", True)) and not second.say(Owner(5, "0-standby", False))
    assert second.say(Owner(6, "0-standby", False)) and not first.say(Owner(5, "0", False))
    assert first.now() == Owner(6, "0-standby", False)
