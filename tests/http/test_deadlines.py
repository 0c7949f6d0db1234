"""The coarse timer of all connections."""

from twisted.internet.task import Clock

from twisted_wasmproxy.http.deadlines import NEVER, Deadlines


class Member:
    def __init__(self, deadlines, after):
        self.deadlines = deadlines
        self.deadline = deadlines.now + after
        self.passed = 0
        deadlines.add(self)

    def deadline_passed(self):
        self.passed += 1
        self.deadline = NEVER


def advance(clock, seconds, step=0.05):
    for _ in range(round(seconds / step)):
        clock.advance(step)


def test_a_deadline_passes_in_time_and_never_too_early():
    for phase in (0.0, 0.1, 0.25, 0.45):
        clock = Clock()
        deadlines = Deadlines(clock, 0.5)
        keeper = Member(deadlines, NEVER)
        advance(clock, 5)
        advance(clock, phase)
        member = Member(deadlines, 2.0)
        advance(clock, 2.0)
        assert member.passed == 0
        advance(clock, 1.1)
        assert member.passed == 1
        assert keeper.passed == 0


def test_a_reactor_that_was_held_up_lets_nobody_expire_for_it():
    clock = Clock()
    deadlines = Deadlines(clock, 0.5)
    member = Member(deadlines, 10.0)
    clock.advance(60)
    clock.advance(0.5)
    assert member.passed == 0
    advance(clock, 12)
    assert member.passed == 1


def test_the_timer_runs_only_while_there_is_somebody_to_watch():
    clock = Clock()
    deadlines = Deadlines(clock, 0.5)
    assert clock.getDelayedCalls() == []
    members = [Member(deadlines, 1.0) for _ in range(3)]
    assert len(clock.getDelayedCalls()) == 1
    for member in members:
        deadlines.remove(member)
        deadlines.remove(member)
    assert clock.getDelayedCalls() == []
    Member(deadlines, 1.0)
    assert len(clock.getDelayedCalls()) == 1


def test_members_may_leave_while_others_expire_and_a_broken_one_stops_nobody():
    clock = Clock()
    deadlines = Deadlines(clock, 0.5)
    members = [Member(deadlines, 1.0) for _ in range(20)]

    def leave(member):
        deadlines.remove(member)
        member.passed += 1

    for number, member in enumerate(members):
        if number % 2:
            member.deadline_passed = lambda member=member: leave(member)
    broken = Member(deadlines, 1.0)
    broken.deadline_passed = lambda: 1 / 0
    advance(clock, 1.6)
    assert all(member.passed == 1 for member in members)
    assert len(clock.getDelayedCalls()) == 1
