"""Names of people: those that are known, and those that stand behind words that announce a name.

A known name is found word by word in any case, with initials, accents and apostrophes as people write them. A name that
is also an everyday word ("Will", "Penny") is found where it is written as a name. Names found behind a cue ("my wife
Susan") are found again elsewhere where they are capitalised. The lexicon holds what is never taken for a name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence

from guidance_agent.tracing.redaction_rules import Found, Words, listed, words_of
from guidance_agent.tracing.redaction_views import Reading, fold

__all__ = ["announced_names", "given_names", "is_like_a_name", "known_names", "parts_of"]

_PART = (
    r"(?:(?:Mc|Mac|O'|D'|St\.? )?[A-Z][a-z]+(?:[A-Z][a-z]+)?(?:[-'][A-Z]?[a-z]+)*|[A-Z]{2,}(?:[-'][A-Z]+)*"
    r"|[A-Z]\.?(?=[\s.])"
    r"|[^\W\d_a-zA-Z]+)"
)
_PARTICLE = r"(?:de|van|der|den|von|bin|binti|ibn|al|el|du|la|le|da|dos|ter|ap|ab)"
_GAP = r"(?:[ \t]+|[ \t]*\r?\n[ \t]*|-)"
_SEQUENCE = rf"{_PART}(?:{_GAP}(?:{_PARTICLE}[ \t]+){{0,2}}{_PART}){{0,3}}"
_NAMES = re.compile(
    rf"[ \t\"'*_]{{0,3}}(?P<names>{_SEQUENCE}(?:(?:,[ \t]+and[ \t]+|,[ \t]+|[ \t]+and[ \t]+"
    rf"|[ \t]*&[ \t]*){_SEQUENCE}){{0,5}})"
)
_NAME = re.compile(rf"\s{{0,6}}[\"'*_]{{0,2}}(?P<names>{_SEQUENCE})")
_LOWER = re.compile(r"[ \t\"']{0,3}(?P<names>[a-z][a-z'-]+(?:[ \t]+[a-z][a-z'-]+)?)(?![\w@])")
_EACH = re.compile(r"[^\s,&\"]+")

_KIN = (
    r"(?:wife|husband|partner|spouse|fiancee?|girlfriend|boyfriend|widow(?:er)?|(?:step|grand|god"
    r"|foster )?(?:sons?|daughters?|child|children"
    r"|mother|father|mum|dad|parents?)|kids?|boys|girls|twins|mam|mummy|daddy|nan|gran|grandma|grandad|granny|"
    r"(?:step|half-)?(?:brothers?|sisters?)|siblings?|uncle|aunt"
    r"|auntie|aunty|nephews?|nieces?|cousins?|friends?|mate|neighbours?|carer|boss|colleague|ex|missus|hubby"
    r"|other half|solicitor|accountant|executors?|attorney|doctor|gp|manager|adviser|advisor)(?:-in-law)?"
)
_WHOSE = r"(?:my|his|her|their|your|our|the|'s)"
_WHICH = (
    r"(?:(?:late|ex|eldest|oldest|youngest|younger|older|elder|middle|new|first|second|former|dear|own|only"
    r"|two|three|four|other|best|civil|disabled|adult|then|future|good|old|step|lovely)[\s-]+){0,3}"
)
_CUES = re.compile(
    r"(?<![a-z])(?:"
    r"(?P<title>mrs?|ms|miss|mx|dr|prof(?:essor)?|sir|lady|lord|dame|rev(?:erend)?|master)\b\.?\s{1,6}"
    rf"|(?P<self>(?:my|his|her|their|your)\s+(?:[a-z]+(?:'s)?\s+){{0,3}}names?(?:'s|\s+is|\s+was|\s+are)"
    rf"(?:\s+now)?|(?:i'm|i am|he's|she's|he is|she is|who is|who's|whose name is|{_KIN}(?:\sis|\sare"
    rf"|\swas)?,?)\s+(?:called|named)|call me|known as|formerly known as|maiden name(?:\sis|\swas)?|nee|name\?)"
    rf"(?=[\s:,-])[\s:,-]{{1,4}}"
    r"|(?P<greet>dear|hi|hello|hey|hiya|thanks|thank you|cheers|good (?:morning|afternoon|evening|day)|sorry"
    r"|welcome(?: back)?|(?:kind |warm |best |many )?(?:regards|wishes)|sincerely|faithfully|truly|signed|attn"
    r"|c/o)(?=[\s,:-])[,:]?[\s-]{0,8}"
    rf"|(?P<kin>{_WHOSE}\s+{_WHICH}{_KIN}(?:'s)?\b)(?:\s*[,:(-]\s*|\s+(?:is|was)\s+(?=called|named))?\s*"
    r"|(?P<role>on behalf of|executors? (?:of|for)|attorney for|estate of|widow(?:er)? of|(?:daughter|son|wife"
    r"|husband|mother|father|brother|sister) of|guardian of|carer for|signed by|spoke(?:n)? (?:to|with)|speaking "
    r"(?:to|with)|customer|client|policyholder|complainant|applicant|married to|married|divorced from"
    r"|separated from|living with|live with|lives with|looking after|care for|caring for)\s+"
    r"|(?P<am>i'm|i am|im|this is|it's|it is)\s+"
    r")"
)
_FIRST_OF_KIN = (
    r"late|ex|eld|old|young|middle|new|first|second|former|dear|own|only|two|three|four|other|best|civil|disabled|adult"
    r"|then|future|good|step|lovely|wife|husband|partner|spouse|fianc|girl|boy|widow|grand|god|foster|son|daughter|child"
    r"|mother|father|mum|dad|parent|kid|twin|mam|nan|gran|half|brother|sister|sibling|uncle|aunt|neph|niece|cousin"
    r"|friend|mate|neigh|carer|boss|colleague|missus|hubby|solicitor|accountant|executor|attorney|doctor|gp|manager|advis"
)
_CALLED = r"\s+(?:called|named)"
_KINS = r"(?:-in-law)?(?:\s(?:is|are|was))?,?\s+(?:called|named|of|for)"
_FOLLOWING = {
    "mr mrs ms miss mx dr prof professor sir lady lord dame rev reverend master": r"\.?\s",
    "my his her their your": rf"\s+(?:{_FIRST_OF_KIN}|(?:[a-z]+(?:'s)?\s+){{0,3}}names?(?:'s|\s+[iwa]))",
    "our": rf"\s+(?:{_FIRST_OF_KIN})",
    "he she": rf"(?:'s| is){_CALLED}",
    "who": rf"(?:'s| is){_CALLED}",
    "whose": rf" name is{_CALLED}",
    "i": r"(?:'m| am)\s",
    "im": r"\s",
    "it": r"(?:'s| is)\s",
    "this": r" is\s",
    "call": " me",
    "known": " as",
    "formerly": " known as",
    "maiden": " name",
    "name": r"\?",
    "thank": " you",
    "good": " (?:morning|afternoon|evening|day)",
    "kind warm best many": " (?:regards|wishes)",
    "on": " behalf of",
    "estate": " of",
    "guardian": " of",
    "daughter son wife husband mother father brother sister widow widower": _KINS,
    "executor executors attorney carer partner": _KINS,
    "customer client policyholder complainant applicant married": r"\s",
    "divorced separated": " from",
    "living live lives": " with",
    "looking": " after",
    "care caring": " for",
    "spoke spoken speaking": " (?:to|with)",
    "c": "/o",
    "nee dear hi hello hey hiya thanks cheers sorry welcome": r"[\s,:-]",
    "regards wishes sincerely faithfully truly signed attn": r"[\s,:-]",
}
"""Words that begin a cue, and what goes on with each of them: whatever `_CUES` finds begins with one of these."""

_RELATIVES = listed(
    "wife husband partner spouse fiance fiancee girlfriend boyfriend widow widower son sons daughter daughters child "
    "children mother father mum dad parent parents kid kids boys girls twins mam mummy daddy nan gran grandma grandad "
    "granny brother brothers sister sisters sibling siblings uncle aunt auntie aunty nephew nephews niece nieces "
    "cousin cousins friend friends mate neighbour neighbours carer boss colleague ex missus hubby half solicitor "
    "accountant executor executors attorney doctor gp manager adviser advisor"
)
_KIN_WORDS = _RELATIVES | {before + word for before in ("step", "grand", "god", "half") for word in _RELATIVES}
_GREETED, _IS = listed("regards wishes"), listed("is s")
_NEEDING = {
    "my his her their your": _KIN_WORDS | {"name", "names"},
    "our": _KIN_WORDS,
    "he she who whose": listed("called named"),
    "kind warm best many": _GREETED,
    "it this": _IS,
    "i": listed("m am"),
    "call": listed("me"),
    "on": listed("behalf"),
    "good": listed("morning afternoon evening day"),
}
_TRIGGERS = Words(_FOLLOWING, needing=_NEEDING)
_BEFORE_KIN = re.compile(rf"(?P<names>{_PART}(?:\s{_PART}){{0,2}})(?:,\s|\s\(|\s(?:is|was),?\s|\s(?:who is|who's)\s)\Z")
_BEFORE_KIN_ENDS = (", ", " (", " is ", " was ", " who's ", ",\n")
_SPEAKS = Words({"here speaking calling": r"[,.!]|\s*\Z|\s-"})
_SPEAKER = re.compile(rf"(?P<names>{_PART}(?:\s{_PART}){{0,2}})\Z")
_NOT_A_PERSONS = re.compile(r"provider|scheme|plan|company|employer|firm|product|fund|bank|model|trust|policy")
_GOES_ON = re.compile(r"[-/]|'\w")
_AFTER_GREETING = re.compile(r"\s*(?:[,.!:\n]|-\s|\Z)")


def never_a_name(word: str) -> bool:
    """Whether the lexicon says that a word, in any case, is no person's name."""
    plain = word.lower().strip(".'\"-_*")
    plain = plain.removesuffix("'s")
    return plain in words_of("function_words") or plain in words_of("never_names")


def announced_names(reading: Reading) -> Iterator[Found]:
    """Names behind titles, greetings, relatives and the words that people introduce themselves with."""
    text, lower = reading.text, reading.lower
    if (cue := _CUES.match(lower)) is not None:
        yield from _behind(cue, text, lower)
    for trigger in _TRIGGERS.found_in(reading):
        if (cue := _CUES.match(lower, trigger.start())) is not None:
            yield from _behind(cue, text, lower)
            if cue.lastgroup == "kin" and text.endswith(_BEFORE_KIN_ENDS, 0, cue.start()):
                yield from _before_kin(cue, text)
    for said in _SPEAKS.found_in(reading):
        place = max(0, said.start() - 1)
        yield from _just_before(_SPEAKER.search(text, max(0, place - 60), place), text)


def _before_kin(cue: re.Match[str], text: str) -> Iterator[Found]:
    before, after = text[cue.start() - 2 : cue.start()], cue[0].rstrip()[-1:]
    if before in {", ", ",\n", " ("} and after not in {",", "("} and text[cue.end() : cue.end() + 1] != ")":
        return
    yield from _just_before(_BEFORE_KIN.search(text, max(0, cue.start() - 70), cue.start()), text)


def _just_before(found: re.Match[str] | None, text: str) -> Iterator[Found]:
    """Yield the name at the end of what was found, if no everyday word ends it."""
    if found is not None:
        names = list(_people(text, *found.span("names")))
        if names and names[-1].end == found.end("names") and not text.endswith("ally", 0, names[-1].end):
            yield names[-1]


def _behind(cue: re.Match[str], text: str, lower: str) -> Iterator[Found]:
    place, kind = cue.end(), cue.lastgroup
    if kind == "self" and _NOT_A_PERSONS.search(cue[0]):
        return
    several = kind in {"kin", "self"}
    if (found := (_NAMES if several else _NAME).match(text, place)) is not None:
        people = list(_people(text, *found.span("names"), titled=kind == "title"))
        if kind == "am" and people:
            end = people[0].end
            # "This is Aviva" announces nobody; "This is Susan calling" does.
            if lower.startswith(("i'm", "im", "i am"), cue.start()):
                people = [] if _GOES_ON.match(text, end) is not None else people
            elif re.match(r"\s(?:here|speaking|calling|again)\b", lower[end : end + 10]) is None:
                people = []
        yield from people
        if people:
            return
    if kind in {"am", "kin", "self"} and (given := _LOWER.match(text, place)) is not None:
        words = given["names"].split()
        if words[0] in words_of("given_names") - words_of("everyday_names"):
            alone = kind == "kin" or len(words) == 1 or never_a_name(words[1])
            yield Found(
                given.start("names"), given.start("names") + len(words[0]) if alone else given.end("names"), "NAME"
            )
            return
    if kind in {"self", "title"} or (kind in {"greet", "kin"} and cue[0].rstrip(" \t") != cue[0].strip("\n")):
        yield from _in_lower_case(kind, cue, text, lower)


def _in_lower_case(kind: str | None, cue: re.Match[str], text: str, lower: str) -> Iterator[Found]:
    found = _LOWER.match(text, cue.end())
    if kind == "self" and not re.search("name|called", cue[0]):
        return
    if found is None or (kind == "title" and cue[0].startswith(("miss", "master", "sir", "lady", "lord", "dame"))):
        return
    words = list(re.finditer(r"[a-z'-]+", found["names"]))
    if never_a_name(words[0][0]):
        return
    start, stop = found.start("names"), found.start("names") + words[0].end()
    if kind in {"greet", "kin"}:
        if _AFTER_GREETING.match(lower, stop) is None or (kind == "kin" and "," not in cue[0] and "(" not in cue[0]):
            return
        if kind == "kin" and words[0][0].endswith(("ly", "ing", "ed")):
            return
    elif kind == "self" and len(words) == 2 and not never_a_name(words[1][0]):
        stop = found.end("names")
    yield Found(start, stop, "NAME")


def _people(text: str, start: int, stop: int, *, titled: bool = False) -> Iterator[Found]:
    """Cut the sequence at conjunctions and where an everyday word ends it."""
    first = last = -1
    for part in _EACH.finditer(text, start, stop):
        word = part[0].rstrip(".'").removesuffix("'s")
        joins = word == "and"
        ends = never_a_name(word) or (word.isupper() and 2 <= len(word) <= 5 and not titled and _is_acronym(word))
        if word.lower() in _PARTICLES and first >= 0:
            continue
        if joins or ends:
            if first >= 0:
                yield Found(first, last, "NAME")
                first = -1
            if ends and not joins:
                return
            continue
        if first >= 0 and "," in text[last : part.start()]:
            yield Found(first, last, "NAME")
            first = -1
        first = part.start() if first < 0 else first
        last = part.start() + len(word)
    if first >= 0:
        yield Found(first, last, "NAME")


_PARTICLES = listed("de van der den von bin binti ibn al el du la le da dos ter ap ab")


def _is_acronym(word: str) -> bool:
    return len(word) <= 3 or not any(vowel in word for vowel in "AEIOUY")


def is_like_a_name(value: str) -> bool:
    """Whether a whole value reads as a person's name, so that `name: Susan Park` is one and `name: gate` is not."""
    words = value.replace(",", " ").split()
    if not words or len(words) > 5 or len(value) > 80:
        return False
    if not all(re.fullmatch(r"[^\W\d_](?:[^\W\d_]|['.-])*", word) for word in words):
        return False
    if any(never_a_name(word) for word in words if word.lower() not in {"mr", "mrs", "ms", "miss", "dr"}):
        return False
    if not any(len(word.strip(".")) > 1 for word in words):
        return False
    if all(word.islower() for word in words):
        return 2 <= len(words) <= 3 and "-" not in value
    return all(word[0].isupper() or word in _PARTICLES or not word.isascii() for word in words)


_CAPITALISED = re.compile(r"[A-Z](?<![A-Za-z].)[a-z]{2,}(?![a-z])")


def given_names(reading: Reading) -> Iterator[Found]:
    """Given names that are nothing else, with initials and the family name beside them."""
    if _written("given_names").isdisjoint(reading.capitalised):
        return
    text, lower, names = reading.text, reading.lower, words_of("given_names")
    for found in _CAPITALISED.finditer(text):
        word = found[0].lower()
        if word in names and not _in_a_body(lower, *found.span()):
            yield Found(*_whole_name(text, *found.span()), "NAME")


@functools.cache
def _written(section: str) -> frozenset[str]:
    return frozenset(word.capitalize() for word in words_of(section))


def parts_of(name: str) -> tuple[str, ...]:
    """Return the words of a found name that may stand alone elsewhere, in lower case."""
    words = re.split(r"[\s.]+", fold(name))
    everyday = words_of("everyday_names")
    return tuple(
        word.lower()
        for word in (word.strip("'\"*_-,") for word in words)
        if len(word) >= 3 and word.lower() not in everyday and not never_a_name(word) and word[0].isalpha()
    )


@functools.lru_cache(maxsize=512)
def _spellings(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return every word of the names in lower case, the longest first."""
    words: dict[str, None] = {}
    for name in known:
        for spelling in {fold(name).lower(), fold(name.translate(_SPELT_OUT)).lower()}:
            words.update(dict.fromkeys(_words(spelling)))
    return tuple(sorted(words, key=lambda word: (-len(word), word)))


@functools.lru_cache(maxsize=512)
def _pattern(longest_first: tuple[str, ...]) -> re.Pattern[str]:
    spelt = [re.escape(word).replace("'", r"['\s]?") for word in longest_first]
    # The first letters stand before the assertion, so that `re` skips to them.
    letters = "".join(sorted({re.escape(word[0]) for word in longest_first}))
    first = "|".join(
        f"(?<={re.escape(word[0])}){one[len(re.escape(word[0])) :]}"
        for word, one in zip(longest_first, spelt, strict=True)
    )
    again = "|".join(spelt)
    return re.compile(
        rf"[{letters}](?<![^\W\d_].)(?:{first})(?:[\s_.\-]{{0,3}}(?:{again})){{0,8}}(?:s(?![^\W\d_])|(?![^\W\d_]))"
    )


_SPELT_OUT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "ø": "oe", "æ": "ae", "œ": "oe"}
)
_NOT_ALONE = listed("mr mrs ms miss mx dr prof sir rev the of and") | _PARTICLES


def _words(name: str) -> Iterator[str]:
    if any(character.isdigit() for character in name) and len(name.strip()) >= 3:
        yield name.strip()
    words = [word.strip("'\".,()_") for word in re.split(r"[\s\-,_]+", name)]
    words = [
        word
        for word in words
        if sum(map(str.isalpha, word)) >= 2 and word not in _NOT_ALONE and not re.search("[0-9]", word)
    ]
    yield from words
    if len(words) > 1:
        yield words[0][0] + words[-1]
    for word in words:
        if "'" in word[1:-1] and len(rest := word.partition("'")[2]) >= 4:
            yield rest


_NEXT = re.compile(r"[ \t]+(?P<part>(?:Mc|Mac|O'|D')?[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)*)|-(?P<joined>[A-Z][a-z]+)")
_BEFORE = re.compile(r"(?:(?<![\w.])[A-Z]\.?[ ]?){1,3}\Z|(?<![\w.])[A-Z][a-z]+-\Z")
_DIGIT_NEAR = re.compile(r"[0-9]")


def known_names(reading: Reading, known: Sequence[str], *, capitalised: bool = False) -> Iterator[Found]:
    """Every word of the known names, with the initials before and the family name behind it.

    Args:
        reading: What is searched.
        known: Names as the profile has them, or words of names.
        capitalised: Whether only what is written with a capital counts.
    """
    words = _spellings(tuple(known))
    text, lower = reading.text, reading.lower
    # Most texts hold no name, and making a pattern for a new customer costs more than looking for the words.
    if not any(word.partition("'")[0] in lower for word in words):
        return
    pattern = _pattern(words)
    everyday = words_of("everyday_names")
    for found in pattern.finditer(lower):
        start, stop = found.start(), _without_everyday_end(text, lower, *found.span())
        written_as_name = text[start].isupper() or not text[start].isascii()
        if capitalised and not written_as_name:
            continue
        word = lower[start:stop]
        if (word in everyday or word.removesuffix("s") in everyday) and (
            not (written_as_name or _stands_alone(lower, start, stop)) or _is_something_else(lower, start, stop)
        ):
            continue
        if _in_a_body(lower, start, stop):
            continue
        if written_as_name:
            start, stop = _whole_name(text, start, stop)
        yield Found(start, stop, "NAME")


def _without_everyday_end(text: str, lower: str, start: int, stop: int) -> int:
    """Leave out the "may" of "Holloway may"."""
    while (last := re.search(r"[\s_.-]([a-z]+)\Z", text[start:stop])) is not None:
        if lower[start + last.start(1) : stop] not in words_of("everyday_names"):
            break
        stop = start + last.start()
    return stop


def _stands_alone(lower: str, start: int, stop: int) -> bool:
    return (lower[start - 1 : start] in {'"', "'", ">"} and lower[stop : stop + 1] in {'"', "'", "<"}) or (
        start == 0 and stop == len(lower)
    )


def _is_something_else(lower: str, start: int, stop: int) -> bool:
    if lower[start:stop] not in {"may", "june", "april", "august", "jan", "march"}:
        return False
    return _DIGIT_NEAR.search(lower[max(0, start - 5) : start] + lower[stop : stop + 6]) is not None


def _in_a_body(lower: str, start: int, stop: int) -> bool:
    word = lower[start:stop]
    for body in _bodies_with(word):
        near = max(0, start - len(body))
        place = lower.find(body, near, stop + len(body))
        if near <= place <= start and place + len(body) >= stop:
            return True
    return False


@functools.lru_cache(maxsize=1024)
def _bodies_with(word: str) -> tuple[str, ...]:
    return tuple(body for body in words_of("bodies") if word in body)


def _whole_name(text: str, start: int, stop: int) -> tuple[int, int]:
    for _ in range(2):
        found = _NEXT.match(text, stop)
        if found is None or never_a_name(found["part"] or found["joined"]):
            break
        stop = found.end()
    if (before := _BEFORE.search(text, max(0, start - 24), start)) is not None and before[0].strip(" .") not in {
        "I",
        "A",
    }:
        start = before.start()
    return start, stop


def names_of(found: Collection[Found], reading: Reading) -> set[str]:
    """Return the words of the names found in a reading."""
    return {part for one in found if one.kind == "NAME" for part in parts_of(reading.text[one.start : one.end])}
