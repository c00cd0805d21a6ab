"""The protocol of mailboxes, ledger and completion, explored exhaustively for small cases.

The model has what decides: entries with an owner, hand-off gated on the entry being pending, the
reaper's new ids, the in-flight marks, the image's conditional update, the question whether any is
open, and the request's conditional update. Faults are steps like any other: a replica dies, is
taken for dead and wakes up, Redis is wiped, a mark is doubted. Every interleaving is visited.

Variants of the protocol that look right and are not show that the exploration would notice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.unit.reachability import dead_ends

pytestmark = pytest.mark.long

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"

REPLICAS = (0, 1)


@dataclass(frozen=True)
class Entry:
    """A message in a mailbox: shared ``fetch`` (lane None) or a replica's lane."""

    id: int
    image: int
    lane: int | None
    owner: int | None = None


@dataclass(frozen=True)
class Hand:
    """What a replica works on: the entry as it was taken, and how far it is."""

    replica: int
    entry: Entry
    step: int = 0


@dataclass(frozen=True)
class State:
    """All that is remembered anywhere."""

    finished: tuple[int, ...]  # how often each image's end was written
    entries: frozenset[Entry] = frozenset()
    in_flight: frozenset[int] = frozenset()
    hands: frozenset[Hand] = frozenset()
    counter: int = 0  # only a broken variant uses it
    completed: int = 0
    dealt: frozenset[int] = frozenset()  # only a broken variant uses it
    faults: int = 0


@dataclass(frozen=True)
class Protocol:
    """Which rules hold; the defaults are the service's."""

    gated: bool = True  # hand-off acts only if the entry was pending
    new_ids: bool = True  # the reaper re-adds instead of giving away
    asks_ledger: bool = True  # completion asks whether any image is open, and counts nothing
    redeals: bool = True  # the dealer deals again what no mailbox knows


def bumped(values: tuple[int, ...], at: int) -> tuple[int, ...]:
    return tuple(v + (i == at) for i, v in enumerate(values))


def without(state: State, entry: Entry) -> State:
    """The state without the entry of that id, whoever owns it by now."""
    return replace(state, entries=frozenset(e for e in state.entries if e.id != entry.id))


def pending(state: State, entry: Entry) -> bool:
    """What XACK answers: whether the id is pending, for whomever."""
    return any(e.id == entry.id and e.owner is not None for e in state.entries)


def added(state: State, image: int, lane: int | None) -> State:
    used = {e.id for e in state.entries} | {h.entry.id for h in state.hands}
    entry = Entry(max(used, default=-1) + 1, image, lane)
    return replace(state, entries=state.entries | {entry}, in_flight=state.in_flight | {image})


def steps(state: State, protocol: Protocol) -> Iterator[State]:
    """What can happen next without a fault."""
    for image in range(len(state.finished)):
        known = state.in_flight if protocol.redeals else state.dealt
        if not state.finished[image] and image not in known:
            yield replace(added(state, image, None), dealt=state.dealt | {image})
    if protocol.asks_ledger and all(state.finished) and not state.completed:
        yield replace(state, completed=1)  # the dealer looks, too
    for entry in state.entries:
        if entry.owner is None:
            for replica in REPLICAS:
                if entry.lane in (None, replica):
                    taken = replace(entry, owner=replica)
                    yield replace(
                        without(state, entry),
                        entries=state.entries - {entry} | {taken},
                        hands=state.hands | {Hand(replica, taken)},
                    )
    for hand in state.hands:
        yield work(replace(state, hands=state.hands - {hand}), hand, protocol)


def work(state: State, hand: Hand, protocol: Protocol) -> State:
    """The next step of one replica with one message; ``state`` is without the hand."""
    entry = hand.entry
    if entry.lane is not None:
        return record(state, hand, protocol)
    if protocol.gated and not pending(state, entry):
        return state
    return added(without(state, entry), entry.image, hand.replica)


def record(state: State, hand: Hand, protocol: Protocol) -> State:
    """The Uploader's steps: the image's end, completion, settling.

    The object is left out: it is created if it is not there, which commutes with everything.
    """
    image = hand.entry.image
    if hand.step == 0:
        mine = not state.finished[image]
        if mine:
            state = replace(state, finished=bumped(state.finished, image))
        if not mine and not protocol.asks_ledger:
            return settled(state, hand.entry)  # not ours to count
    elif hand.step == 1:
        state = look_for_end(state, protocol)
    else:
        return settled(state, hand.entry)
    return replace(state, hands=state.hands | {replace(hand, step=hand.step + 1)})


def look_for_end(state: State, protocol: Protocol) -> State:
    """Any image open? If none, end the request if it has no end."""
    if protocol.asks_ledger:
        ended = all(state.finished) and not state.completed
        return replace(state, completed=1) if ended else state
    # The broken variant counts on a second document instead.
    state = replace(state, counter=state.counter + 1)
    ended = state.counter == len(state.finished)
    return replace(state, completed=state.completed + 1) if ended else state


def settled(state: State, entry: Entry) -> State:
    if not pending(state, entry):
        return state
    return replace(without(state, entry), in_flight=state.in_flight - {entry.image})


def faults(state: State, protocol: Protocol) -> Iterator[State]:
    """What can go wrong next."""
    state = replace(state, faults=state.faults + 1)
    yield replace(state, entries=frozenset(), in_flight=frozenset())  # Redis is wiped
    for image in state.in_flight:
        yield replace(state, in_flight=state.in_flight - {image})  # its mark is doubted
    replicas = REPLICAS if state.faults > 1 else REPLICAS[:1]  # at first they are all alike
    for replica in replicas:
        dead = replace(state, hands=frozenset(h for h in state.hands if h.replica != replica))
        yield reaped(dead, replica, protocol)  # it died
        yield reaped(state, replica, protocol)  # it was only paused, and goes on


def reaped(state: State, replica: int, protocol: Protocol) -> State:
    for entry in sorted(state.entries, key=lambda e: e.id):
        if replica in (entry.owner, entry.lane):
            if protocol.new_ids:
                state = added(without(state, entry), entry.image, None)
            else:
                freed = replace(entry, owner=None, lane=None)
                state = replace(state, entries=state.entries - {entry} | {freed})
    return state


def canonical(state: State) -> State:
    """The state with its ids counted anew: only which are the same matters."""
    ids = sorted({e.id for e in state.entries} | {h.entry.id for h in state.hands})
    new = {old: rank for rank, old in enumerate(ids)}
    return replace(
        state,
        entries=frozenset(replace(e, id=new[e.id]) for e in state.entries),
        hands=frozenset(
            replace(h, entry=replace(h.entry, id=new[h.entry.id])) for h in state.hands
        ),
    )


def explore(protocol: Protocol, images: int, most_faults: int) -> tuple[int, str | None]:
    """Visit every state; the number visited, and the first wrong that was found."""
    start = State((0,) * images)
    came_from: dict[State, list[State]] = {start: []}
    waiting = deque([start])
    final = []
    while waiting:
        state = waiting.popleft()
        if wrong := violated(state):
            return len(came_from), wrong
        regular = list(steps(state, protocol))
        if not regular:
            if not at_rest(state):
                return len(came_from), f"stuck: {state}"
            final.append(state)
        more = list(faults(state, protocol)) if state.faults < most_faults else []
        for following in map(canonical, regular + more):
            if following not in came_from:
                came_from[following] = []
                waiting.append(following)
            came_from[following].append(state)
    lost = dead_ends(came_from, final)
    return len(came_from), f"never ends: {next(iter(lost))}" if lost else None


def violated(state: State) -> str | None:
    if max(state.finished) > 1:
        return "an image ended twice"
    if state.completed > 1:
        return "a request ended twice"
    if state.completed and not all(state.finished):
        return "a request ended before its images"
    return None


def at_rest(state: State) -> bool:
    return bool(
        state.completed == 1 and all(state.finished) and not state.entries and not state.hands
    )


@pytest.mark.parametrize(("images", "most_faults"), [(1, 2), (2, 1)])
def test_no_interleaving_loses_or_doubles_anything(images: int, most_faults: int) -> None:
    visited, wrong = explore(Protocol(), images, most_faults)
    assert wrong is None
    assert f"{visited:,}" in DOCUMENT.read_text(), "it did go through as many as it says there"


@pytest.mark.parametrize(
    "broken",
    [
        Protocol(asks_ledger=False),  # a crash comes between image and counter
        Protocol(redeals=False),  # Redis is wiped
    ],
    ids=["completion by a counter", "no second deal"],
)
def test_the_exploration_notices_a_broken_protocol(broken: Protocol) -> None:
    _, wrong = explore(broken, images=2, most_faults=1)
    assert wrong is not None


def work_done_twice(protocol: Protocol) -> bool:
    """Whether one image can be in two mailboxes at once after a pause, with Redis unharmed."""
    start = State((0, 0))
    seen = {start}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        images = [entry.image for entry in state.entries]
        if len(images) > len(set(images)):
            return True
        following = list(steps(state, protocol))
        if not state.faults:
            paused = replace(state, faults=1)
            following += [reaped(paused, replica, protocol) for replica in REPLICAS]
        following = [s for s in map(canonical, following) if s not in seen]
        waiting.extend(following)
        seen.update(following)
    return False


@pytest.mark.parametrize(
    ("protocol", "doubled"),
    [
        (Protocol(), False),
        (Protocol(gated=False), True),
        (Protocol(new_ids=False), False),
    ],
    ids=["as it is", "hand-off without a gate", "entries given away"],
)
def test_a_message_is_in_exactly_one_mailbox(protocol: Protocol, doubled: bool) -> None:
    assert work_done_twice(protocol) is doubled
