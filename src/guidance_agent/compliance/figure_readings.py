"""What a sentence says of one figure: which of its numbers are meant to be it, and which of those are right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple, TypeAlias

from guidance_agent.compliance.figure_context import FigureContext, Stretch
from guidance_agent.compliance.figure_index import Called, TopicIndex
from guidance_agent.compliance.figure_times import Claim, claim_at, names_other_time, pieces_of
from guidance_agent.compliance.figure_topics import FigureTopic, Sought
from guidance_agent.compliance.figure_values import is_value
from guidance_agent.compliance.figure_wording import word_list
from guidance_agent.compliance.patterns import Alphabet
from guidance_agent.compliance.quantities import Quantity, QuantityReader
from guidance_agent.compliance.sums import may_state_sum

__all__ = ["FigureReading", "FigureSentence", "NameSpan", "NamesHere", "WrongFigure"]

_REACH_AFTER = 12
_REACH_BEFORE = 6
_BESIDE = 2
_ELLIPSIS_REACH = 8


class FigureSentence:
    """A sentence with its numbers read, and the words before it."""

    def __init__(
        self,
        read: QuantityReader,
        text: str,
        on: date,
        before: FigureContext | None,
        index: TopicIndex,
        alphabet: Alphabet,
    ) -> None:
        self.marked, self.quantities = read.words, read.found
        self.here = Stretch(self.marked, alphabet)
        self.may_state_sum = may_state_sum(read.numbers)
        self.text = text
        self.on = on
        self.before = before
        self.index = index
        self.fitting = [0 if quantity is None else index.fitting(quantity) for quantity in self.quantities]
        """For each token the topics of which it can be the figure."""

    @cached_property
    def any_fitting(self) -> int:
        """The topics of which any number can be the figure."""
        found = 0
        for bits in self.fitting:
            found |= bits
        return found

    @cached_property
    def suspects(self) -> int:
        """The topics of which a number may be a wrong figure even if the sentence names no time."""
        index = self.index
        found = 0
        for quantity, fitting in zip(self.quantities, self.fitting, strict=True):
            if fitting and quantity is not None:
                found |= fitting & ~index.right(quantity, self.on)
        return found | index.by_birth if self.speaks_of_birth else found

    @property
    def elliptic(self) -> int:
        """The topics that a number may be which stands where none need be named again; some more than there are."""
        is_said_of_it = not {"it", "that"}.isdisjoint(self.here.vocabulary)
        found = 0
        for bits in self.fitting if is_said_of_it else self.fitting[:_ELLIPSIS_REACH]:
            found |= bits
        return found

    @cached_property
    def speaks_of_birth(self) -> bool:
        """Whether `born` can be anything but None."""
        return "born" in self.here.vocabulary or (self.before is not None and "born" in self.before.vocabulary)

    @cached_property
    def speaks_of_other_time(self) -> bool:
        """Whether anything in the sentence can make a figure that of another day than the one on which it is said."""
        return "#date" in self.here.vocabulary or names_other_time(self.marked.line)

    @cached_property
    def pieces(self) -> list[tuple[int, int]]:
        return pieces_of(self.marked.tokens)

    @cached_property
    def born(self) -> tuple[date, date] | None:
        """The days on which somebody in the sentence, or else in what stands before it, was born."""
        before = None if self.before is None else self.before.read
        for read in ((self.marked, self.quantities), before):
            for place, quantity in enumerate(read[1] if read else ()):
                if read and quantity and quantity.kind == "date" and "born" in read[0].texts[max(0, place - 3) : place]:
                    return quantity.first, quantity.last
        return None

    def claim(self, place: int) -> Claim:
        return claim_at(place, self.marked.tokens, self.quantities, self.pieces, self.on)

    def token(self, place: int) -> str:
        tokens = self.marked.tokens
        return tokens[place].text if 0 <= place < len(tokens) else ""


_OWN_BEFORE = word_list("own_before")
_HELD = word_list("held")
_LINK = word_list("link")
_HELD_AFTER = word_list("held_after")


_HELD_IN = word_list("held_in")
_APPROXIMATE = word_list("approximate")
_UNUSED = word_list("unused")


NameSpan: TypeAlias = tuple[int, int, FigureTopic]
"""Where a topic is named, as places of tokens, and the topic."""


class WrongFigure(NamedTuple):
    """A number that is not the figure at the time for which it is given, and how surely it is meant to be it."""

    place: int
    quantity: Quantity
    claim: Claim
    score: float


class FigureReading:
    """What a sentence says of one figure."""

    __slots__ = ("bit", "own", "places", "right", "score", "sentence", "topic", "values", "wrong")

    def __init__(self, topic: FigureTopic, bit: int, sentence: FigureSentence) -> None:
        self.topic = topic
        self.bit = bit
        self.sentence = sentence
        self.places: dict[int, float] = {}
        self.own: dict[int, float] = {}
        """Places of numbers that would be the figure if they were not somebody's own or an example."""
        self.right: list[int] = []
        self.wrong: list[WrongFigure] = []
        self.score = 0.0

    @property
    def may_be_wrong(self) -> bool:
        """Whether `judge` can find anything wrong; costs much less than `judge`."""
        sentence = self.sentence
        if self.topic.by_birth and sentence.speaks_of_birth:
            return bool(self.places)
        for place in self.places:
            quantity = sentence.quantities[place]
            if quantity is not None and not sentence.index.right(quantity, sentence.on) & self.bit:
                return True
        return bool(self.places) and sentence.speaks_of_other_time

    def collect(self, names: NamesHere, before: Called) -> None:
        """Find the numbers that are meant to be the figure.

        Args:
            names: Where topics are named.
            before: What the words before the sentence call for.
        """
        topic, here = self.topic, self.sentence.here
        named: Sequence[NameSpan] = ()
        if here.may_have(topic.names):
            named = names.of(topic)
            for start, end, _ in named:
                self._near(start, end, names.of_others(topic))
        for place in self._targets(topic.says):
            self.places[place] = 1.0
        is_here = bool(named) or here.has(topic.about)
        then = self._targets(topic.then)
        if then and (is_here or self._is_spoken_of_before(before)):
            for place in then:
                self.places[place] = max(0.9 if is_here else 0.8, self.places.get(place, 0.0))
        places = self._ellipsis() if not is_here and before.names & self.bit else ()
        if places and self._is_named_before(before) and not names.of_others(topic):
            for place in places:
                self.places.setdefault(place, 0.8)
        if self.places and here.has(topic.unless):
            self.places.clear()

    def _is_named_before(self, before: Called) -> bool:
        there = self.sentence.before
        return there is not None and before.names & self.bit != 0 and there.has(self.topic.names)

    def _is_spoken_of_before(self, before: Called) -> bool:
        if self._is_named_before(before):
            return True
        there = self.sentence.before
        return there is not None and before.about & self.bit != 0 and there.has(self.topic.about)

    def _targets(self, patterns: Iterable[Sought]) -> list[int]:
        places = [match.start("said") for match in self.sentence.here.matches(patterns)]
        return [place for place in places if self._fits(place)]

    def _near(self, start: int, end: int, others: Iterable[NameSpan]) -> None:
        rivals = [(low, high) for low, high, topic in others if set(topic.accepts) & set(self.topic.accepts)]
        length = len(self.sentence.quantities)
        for place in range(end, min(end + _REACH_AFTER, length)):
            if self.sentence.token(place)[0] in ".!?…" or any(low <= place < high for low, high in rivals):
                break
            if self._fits(place):
                (self.own if self._is_own(place) else self.places).setdefault(place, 0.95)
        for place in range(start - 1, max(start - _REACH_BEFORE, -1), -1):
            if self.sentence.token(place)[0] in ".!?…;:,–—(" or any(low <= place < high for low, high in rivals):
                break
            if self._fits(place):
                is_beside = start - place <= _BESIDE and not self._is_unused(place)
                is_own = self._is_own(place) and not (is_beside and self.sentence.token(place - 1) not in _LINK)
                (self.own if is_own else self.places).setdefault(place, 0.95)
                break

    def _ellipsis(self) -> Sequence[int]:
        """Return the numbers that need no name where what stands before has given one."""
        length = len(self.sentence.quantities)
        for place in range(min(_ELLIPSIS_REACH, length)):
            if self._fits(place) and not self._is_own(place):
                return [place]
        places = []
        for place in range(_ELLIPSIS_REACH, length):
            if self._fits(place):
                lead = {self.sentence.token(place - back) for back in (4, 3, 2, 1)}
                if {"it", "that"} & lead and {"is", "'s"} & lead:
                    places.append(place)
        return places

    def _fits(self, place: int) -> bool:
        return self.sentence.fitting[place] & self.bit != 0

    def _is_own(self, place: int) -> bool:
        """Whether a number is somebody's own or an example and not the figure."""
        token = self.sentence.token
        texts = self.sentence.marked.texts
        if token(place - 1) in _OWN_BEFORE or token(place + 1) in _HELD_AFTER:
            return True
        if token(place + 1) in ("of", "in", "on") and not _HELD_IN.isdisjoint(texts[place + 2 : place + 4]):
            return True
        if "yours" in texts[max(0, place - _REACH_BEFORE - 2) : place] or self._is_unused(place):
            return True
        quantity = self.sentence.quantities[place]
        if self.topic.per and quantity and quantity.per == self.topic.per:
            return False
        back = place - 1
        while back > place - 4 and token(back) in _LINK:
            back -= 1
        return token(back) in _HELD

    def _is_unused(self, place: int) -> bool:
        """Whether a number is what is left of an allowance."""
        return not _UNUSED.isdisjoint(self.sentence.marked.texts[max(0, place - 2) : place + _REACH_BEFORE])

    def judge(self) -> None:
        """Compare each of the numbers with the values that held when it is said to hold."""
        for place in sorted(self.places | self.own):
            quantity = self.sentence.quantities[place]
            if quantity is None:
                continue
            claim = self.sentence.claim(place)
            verdict = self._verdict(place, quantity, claim)
            if verdict is True:
                self.right.append(place)
            elif verdict is False and place in self.places:
                self.wrong.append(WrongFigure(place, quantity, claim, self.places[place]))
                self.score = max(self.score, self.places[place])

    def _verdict(self, place: int, quantity: Quantity, claim: Claim) -> bool | None:
        topic, sentence = self.topic, self.sentence
        approximate = self._is_approximate(place)
        if claim.kind == "reported":
            return None
        is_range = sentence.token(place - 1) in ("from", "between") and sentence.token(place + 1) in ("to", "and")
        if is_range and self.places.get(place, 0.0) < 1:
            return None
        if allowed := self.allowed_by_birth():
            return quantity.value in allowed
        if quantity.value in topic.accepted:
            return True
        if quantity.value in topic.accepted_unless_now and not (
            claim.named and claim.first == claim.last == sentence.on
        ):
            return None
        right = [value for value in topic.values if is_value(quantity, value, approximate=approximate)]
        if claim.kind == "past":
            return None
        if claim.kind == "future":
            coming = [value for value in topic.values if value.last > sentence.on]
            return None if not coming else any(value in coming for value in right)
        holding = [value for value in topic.values if value.first <= claim.last and claim.first <= value.last]
        if any(value in holding for value in right):
            return True
        if holding:
            return False
        # Nothing holds at that time: a value of another time was given for the wrong one, and what has never been is
        # wrong where the figure is still to come.
        return False if right or any(value.first > claim.last for value in topic.values) else None

    def allowed_by_birth(self) -> tuple[Decimal, ...]:
        """Return what is right for those born when the sentence says; nothing when it does not."""
        if not self.topic.by_birth or (born := self.sentence.born) is None:
            return ()
        for entry in self.topic.by_birth:
            if entry.born_from <= born[0] and born[1] <= entry.born_until:
                return entry.values
        return ()

    def _is_approximate(self, place: int) -> bool:
        tokens = [self.sentence.token(place - back) for back in (3, 2, 1)]
        after = [self.sentence.token(place + step) for step in (1, 2)]
        return bool(_APPROXIMATE & set(tokens)) or after == ["or", "so"] or "roughly" in after


class NamesHere:
    """Where topics are named in a sentence, looked for when it is first asked.

    Of names that overlap the longest counts.

    Args:
        topics: Those that the words of the sentence call for.
        here: The sentence.
    """

    def __init__(self, topics: Iterable[FigureTopic], here: Stretch) -> None:
        self._topics = topics
        self._here = here

    def of(self, topic: FigureTopic) -> Sequence[NameSpan]:
        """Return where `topic` is named."""
        return [span for span in self._spans if span[2] is topic]

    def of_others(self, topic: FigureTopic) -> Sequence[NameSpan]:
        """Return where topics but `topic` are named."""
        return [span for span in self._spans if span[2] is not topic]

    @cached_property
    def _spans(self) -> list[NameSpan]:
        found: list[NameSpan] = []
        for topic in self._topics:
            found += [(*match.span(), topic) for match in self._here.matches(topic.names)]
        found.sort(key=lambda span: (span[0] - span[1], span[0]))
        kept: list[NameSpan] = []
        for start, end, topic in found:
            # Topics that share a name, such as the weekly and the yearly State Pension, both keep it.
            if all(end <= low or high <= start or (low == start and high == end) for low, high, _ in kept):
                kept.append((start, end, topic))
        return kept
