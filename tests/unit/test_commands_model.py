"""Retry, cancel and the end of a request, explored exhaustively for small cases.

The model has the ledger's documents and everyone who writes them: workers that fetch and store,
dealers that carry out a retry or a cancellation, and whoever looks whether a request has ended.
Each goes step by step, may stop for any time between two steps with what it has read, and may die;
several may be at the same thing. Every interleaving of so many at once is visited.

Variants that look right and are not show that the exploration would notice.
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

PENDING, COMPLETED, FAILED, CANCELLED = "PENDING", "COMPLETED", "FAILED", "CANCELLED"
WORK, REOPEN, CANCEL, END = "work", "reopen", "cancel", "end"


@dataclass(frozen=True)
class Image:
    """One image, alone in its product."""

    status: str = PENDING
    turn: int = 0  # of the image
    reopened: int = 0  # of the product: the last retry it was opened for
    times: int = 0  # it was opened again
    stored: bool = False  # its object
    stale: bool = False  # it was ended by work of an earlier turn


@dataclass(frozen=True, order=True)
class Hand:
    """Someone in the middle of something.

    Args:
        kind: of what.
        at: which image it is about.
        step: how far it is.
        read: what it has read, and goes by.
    """

    kind: str
    at: int = 0
    step: int = 0
    read: tuple[int, ...] = ()

    def on(self, *read: int) -> Hand:
        return replace(self, step=self.step + 1, read=read or self.read)


@dataclass(frozen=True)
class State:
    """The ledger, the bucket, and who is at work."""

    images: tuple[Image, ...]
    status: str = PENDING  # COMPLETED: ended, whichever way
    command: int = 0  # the number of the retry that is being carried out
    commands: int = 0
    cancelling: bool = False
    ends: int = 0
    hands: tuple[Hand, ...] = ()
    deaths: int = 0


@dataclass(frozen=True)
class Rules:
    """Which rules hold; the defaults are the service's."""

    products_remember: bool = True  # a product is opened once for each retry
    clears_its_own: bool = True  # who has carried out a retry clears no later one
    end_names_commands: bool = True  # an end counts only if no retry came since it was looked for
    turns: bool = True  # an image's end counts only for the turn that was worked on
    takes_back: bool = True  # who stored for a cancelled image deletes the object
    keeps_for_failed: bool = True  # ... but not for a failed one
    sweeps: bool = True  # objects are looked through when a cancelled request is at rest


def steps(state: State, rules: Rules, retries: int, most: int) -> Iterator[State]:
    """What can happen next without a death, with so many at work at once at most."""
    yield from clients(state, retries)
    if len(state.hands) < most:
        for hand in beginnings(state):
            yield with_hand(state, hand)
    for hand in set(state.hands):
        rest = without(state, hand)
        yield from GO_ON[hand.kind](rest, hand, rules)
    if rules.sweeps and state.status == CANCELLED and not state.hands:
        images = [replace(i, stored=i.stored and i.status != CANCELLED) for i in state.images]
        yield replace(state, images=tuple(images))


def clients(state: State, retries: int) -> Iterator[State]:
    """What clients may ask for: each is one conditional update of the request."""
    if state.status == PENDING and not state.cancelling:
        yield replace(state, cancelling=True)
    failed = any(image.status == FAILED for image in state.images)
    if state.status == COMPLETED and failed and not state.command and state.commands < retries:
        number = state.commands + 1
        yield replace(state, status=PENDING, command=number, commands=number)


def beginnings(state: State) -> Iterator[Hand]:
    """What someone may begin."""
    if state.status == PENDING:
        for at, image in enumerate(state.images):
            if image.status == PENDING:
                yield Hand(WORK, at, read=(image.turn,))
        if state.command:
            yield Hand(REOPEN, read=(state.command,))
        if state.cancelling:
            yield Hand(CANCEL)
        yield Hand(END)


def work(state: State, hand: Hand, rules: Rules) -> Iterator[State]:
    """Fetch, look once more, store, write the end; take the object back if it is nobody's."""
    image, (turn,) = state.images[hand.at], hand.read
    mine = image.turn == turn or not rules.turns
    open_ = image.status == PENDING and mine
    stale = image.stale or image.turn != turn
    if hand.step == 0:
        yield with_image(state, hand.at, status=FAILED, stale=stale) if open_ else state
        yield with_hand(state, hand.on())
    elif hand.step == 1:
        yield with_hand(state, hand.on()) if open_ else state
    elif hand.step == 2:
        yield with_hand(with_image(state, hand.at, stored=True), hand.on())
    elif hand.step == 3:
        lost = {CANCELLED} if rules.keeps_for_failed else {CANCELLED, FAILED}
        if open_:
            yield with_image(state, hand.at, status=COMPLETED, stale=stale)
        elif image.status in lost and rules.takes_back:
            yield with_hand(state, hand.on())
        else:
            yield state
    else:
        yield with_image(state, hand.at, stored=False)


def reopen(state: State, hand: Hand, rules: Rules) -> Iterator[State]:
    """Open what failed, product by product, and clear the command."""
    (number,) = hand.read
    if hand.step < len(state.images):
        image = state.images[hand.step]
        fresh = image.reopened < number or not rules.products_remember
        if image.status == FAILED and fresh:
            changes = {"status": PENDING, "turn": number, "reopened": number}
            state = with_image(state, hand.step, times=image.times + 1, **changes)
        yield with_hand(state, hand.on())
    elif state.command == number or not rules.clears_its_own:
        yield replace(state, command=0)
    else:
        yield state


def cancel(state: State, hand: Hand, _: Rules) -> Iterator[State]:
    """Drop what is open, product by product, and look for the end."""
    if hand.step == 0:
        yield with_hand(state, hand.on()) if state.status == PENDING else state
    elif hand.step <= len(state.images):
        at = hand.step - 1
        if state.images[at].status == PENDING:
            state = with_image(state, at, status=CANCELLED)
        yield with_hand(state, hand.on())
    else:
        yield with_hand(state, Hand(END))


def end(state: State, hand: Hand, rules: Rules) -> Iterator[State]:
    """Is any image open? Is there a command? Is any open still? Then end it, if nothing changed."""
    closed = all(image.status != PENDING for image in state.images)
    if hand.step == 0:
        yield with_hand(state, hand.on()) if closed else state
    elif hand.step == 1:
        read = (state.commands, int(state.cancelling))
        may = state.status == PENDING and not state.command
        yield with_hand(state, hand.on(*read)) if may else state
    elif hand.step == 2:
        yield with_hand(state, hand.on()) if closed else state
    else:
        commands, cancelling = hand.read
        unchanged = state.cancelling == bool(cancelling) and (
            state.commands == commands or not rules.end_names_commands
        )
        if state.status == PENDING and not state.command and unchanged:
            status = CANCELLED if cancelling else COMPLETED
            state = replace(state, status=status, cancelling=False, ends=state.ends + 1)
        yield state


GO_ON = {WORK: work, REOPEN: reopen, CANCEL: cancel, END: end}


def with_image(state: State, at: int, **changes: object) -> State:
    images = [replace(i, **changes) if n == at else i for n, i in enumerate(state.images)]  # type: ignore[arg-type]
    return replace(state, images=tuple(images))


def with_hand(state: State, hand: Hand) -> State:
    return replace(state, hands=tuple(sorted([*state.hands, hand])))


def without(state: State, hand: Hand) -> State:
    hands = list(state.hands)
    hands.remove(hand)
    return replace(state, hands=tuple(hands))


def explore(
    rules: Rules, images: int, retries: int, most: int, deaths: int
) -> tuple[int, str | None]:
    """Visit every state; the number visited, and the first wrong that was found."""
    start = State((Image(),) * images)
    came_from: dict[State, list[State]] = {start: []}
    waiting = deque([start])
    final = []
    while waiting:
        state = waiting.popleft()
        if wrong := violated(state):
            return len(came_from), f"{wrong}: {state}"
        if at_rest(state):
            final.append(state)
        following = list(steps(state, rules, retries, most))
        if state.deaths < deaths:
            dead = replace(state, deaths=state.deaths + 1)
            following += [without(dead, hand) for hand in set(state.hands)]
        for each in following:
            if each not in came_from:
                came_from[each] = []
                waiting.append(each)
            came_from[each].append(state)
    lost = dead_ends(came_from, final)
    return len(came_from), f"never ends: {next(iter(lost))}" if lost else None


def violated(state: State) -> str | None:
    images, ended = state.images, state.status != PENDING
    wrongs = {
        "an image is open in a request that has ended": ended
        and any(i.status == PENDING for i in images),
        "a result has no object": any(i.status == COMPLETED and not i.stored for i in images),
        "an image was opened twice for one retry": any(i.times > state.commands for i in images),
        "an image was ended by what was found out before its retry": any(i.stale for i in images),
        "a request ended twice": state.ends > 1 + state.commands,
        "a request with cancelled images did not end as cancelled": state.status == COMPLETED
        and any(i.status == CANCELLED for i in images),
    }
    return next((wrong for wrong, is_so in wrongs.items() if is_so), None)


def at_rest(state: State) -> bool:
    nobodys = any(i.stored and i.status == CANCELLED for i in state.images)
    return state.status != PENDING and not state.hands and not state.command and not nobodys


@pytest.mark.parametrize(("images", "retries", "most", "deaths"), [(1, 1, 3, 1), (2, 1, 2, 1)])
def test_no_interleaving_breaks_a_promise(
    images: int, retries: int, most: int, deaths: int
) -> None:
    visited, wrong = explore(Rules(), images, retries, most, deaths)
    assert wrong is None
    assert f"{visited:,}" in DOCUMENT.read_text(), "it did go through as many as it says there"


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (Rules(products_remember=False), "opened twice for one retry"),
        (Rules(clears_its_own=False), "is open in a request that has ended"),
        (Rules(end_names_commands=False), "is open in a request that has ended"),
        (Rules(turns=False), "before its retry"),
        (Rules(takes_back=False, sweeps=False), "never ends"),
        (Rules(sweeps=False), "never ends"),
        (Rules(keeps_for_failed=False), "has no object"),
    ],
    ids=[
        "products forget",
        "a later retry is cleared",
        "an end from before a retry",
        "no turns",
        "nobody takes objects back",
        "nobody looks through the bucket",
        "objects of failed images are taken back",
    ],
)
def test_the_exploration_notices_a_broken_rule(broken: Rules, expected: str) -> None:
    _, wrong = explore(broken, images=1, retries=2, most=2, deaths=0)
    assert wrong
    assert expected in wrong
