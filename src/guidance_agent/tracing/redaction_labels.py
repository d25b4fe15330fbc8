"""Personal data by the label before it: fields of JSON, YAML, XML and forms, attribute keys, plan and policy numbers.

The label decides what a value is, so a value in no known form is found too: a telephone number with a digit missing,
an account number of six digits. What is said of labels holds for `"sort_code": "…"`, `sortCode=…`, `Sort code: …`,
`<sort_code>…` and the attribute `customer.sort_code` alike.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from guidance_agent.tracing.redaction_names import is_like_a_name
from guidance_agent.tracing.redaction_rules import Found, Words, digits_of, listed
from guidance_agent.tracing.redaction_views import Reading, fold

__all__ = ["kind_of_key", "labelled", "plans", "says_something"]

_G = r"[\s_.-]?"
_OF_PERSON = (
    r"(?:first|last|full|given|family|middle|maiden|birth|preferred|legal|known|customer|client|member|holder|partner"
    r"|spouse|wife|husband|contact|user|applicant|beneficiary|nominee|payee|account[\s_]?holder|cardholder|mother"
    r"|father"
    r"|child|son|daughter|executor|attorney|policyholder|policy[\s_]?holder|display|nick)"
)
_NUMBER = rf"(?:{_G}(?:number|numbers|no|num|nr|ref|reference|id))"
_LABELS = {
    "NAME": (
        rf"(?:{_OF_PERSON}(?:'s)?{_G}){{1,3}}names?|forenames?|surname|nickname|next{_G}of{_G}kin|salutation"
        rf"|alias(?:es)?|(?:policy{_G}|account{_G}|card)holder|beneficiary|nominee"
    ),
    "DATE OF BIRTH": rf"date{_G}of{_G}birth|birth{_G}(?:date|day)|dob|d\.o\.b\.?|born",
    "EMAIL": rf"e-?mail(?:{_G}address)?s?",
    "PHONE": (
        rf"(?:tele|mobile{_G}|home{_G}|work{_G}"
        rf"|contact{_G})?phone{_NUMBER}?|mobile{_NUMBER}?|tel{_NUMBER}?|landline{_NUMBER}?|msisdn"
    ),
    "POSTCODE": rf"post{_G}code|postal{_G}code|zip(?:{_G}code)?",
    "NI NUMBER": rf"ni{_NUMBER}|nino|national{_G}insurance(?:{_NUMBER})?",
    "SORT CODE": rf"sort{_G}code",
    "ACCOUNT NUMBER": rf"(?:bank{_G})?(?:account|acct?|a/c){_NUMBER}|roll{_NUMBER}",
    "CARD": rf"card{_NUMBER}|(?:credit|debit){_G}card(?:{_NUMBER})?|pan|cvv2?|cvc",
    "IBAN": r"iban",
    "PASSPORT": rf"passport(?:{_NUMBER})?",
    "UTR": r"utr|tax" + _NUMBER,
    "NHS NUMBER": rf"nhs{_NUMBER}",
    "DRIVING LICENCE": rf"driving{_G}licen[cs]e(?:{_NUMBER})?",
    "CUSTOMER ID": rf"(?:customer|client|user){_G}(?:id|number|no|ref|reference)",
    "ADDRESS": (
        rf"(?:(?:home|postal|street|correspondence|billing|mailing|current|previous){_G})?address"
        rf"(?:{_G}line)?(?:{_G}[0-9])?"
        rf"|(?:address|addr){_G}line{_G}[0-9]|street(?:{_G}name)?|town|city|county|house{_G}(?:name|number)"
    ),
    "PLAIN NAME": (
        r"name|customer|client|member|signed|attn|executor|attorney|spouse|partner|wife|husband|payee"
        r"|from|to|advisor|adviser"
    ),
}
_WITH_DIGITS = frozenset(
    {
        "DATE OF BIRTH",
        "PHONE",
        "POSTCODE",
        "NI NUMBER",
        "SORT CODE",
        "ACCOUNT NUMBER",
        "CARD",
        "IBAN",
        "PASSPORT",
        "UTR",
        "NHS NUMBER",
        "DRIVING LICENCE",
    }
)
_GROUPS = {f"k{index}": kind for index, kind in enumerate(_LABELS)}
_ANY_LABEL = "|".join(f"(?P<k{index}>{label})" for index, label in enumerate(_LABELS.values()))
# What every label ends with: an ending is compared faster than sixteen patterns are tried.
_ENDINGS = tuple(
    listed(
        "name names forename forenames surname nickname kin salutation alias aliases holder beneficiary nominee "
        "birth birthdate birthday date "
        "day dob d.o.b d.o.b. born mail mails email emails address number numbers no num nr ref reference id phone "
        "mobile tel landline msisdn code zip "
        "nino insurance card pan cvv cvv2 cvc iban passport utr licence license line street town city county 0 1 2 "
        "3 4 5 ) ] "
        "customer client member signed attn executor attorney spouse partner wife husband payee from to advisor adviser"
    )
)
_LAST_TWO = {
    last: tuple(ending for ending in _ENDINGS if ending.endswith(last) or last.endswith(ending))
    for last in {ending[-2:] for ending in _ENDINGS}
}
_SEPARATORS = re.compile("[:=>]"), re.compile(r" is\s")
_VALUE = re.compile(
    r"(?:\s*>)?\s{0,8}(?:(?P<quote>[\"'])(?P<quoted>(?:(?!(?P=quote)).){1,200})|"
    r"(?P<bare>[^\s,;\"'{}\[\]<>][^,;\"{}\[\]<>\n]{0,80}))",
    re.DOTALL,
)
_LABEL = re.compile(rf"(?<![a-z])(?<![a-z][_.-])(?:{_ANY_LABEL})(?:\[\]|\([^()]{{0,20}}\))?\Z")
_KEY = re.compile(rf"(?:.*[._/\s-])?(?:{_ANY_LABEL})(?:\.[0-9]+)?", re.DOTALL)
_PERSON = re.compile(
    r"(?:\A|[._])(?:customer|client|person|contact|profile|partner|spouse|wife|husband|member|beneficiary|caller)[._]"
)
_LONGEST_LABEL, _LONGEST_KEY = 48, 200
_NOTHING = listed("none null nil unknown n/a na true false yes no - unset undefined redacted") | {
    "not known",
    "not given",
}
_ADDRESS_OF_MACHINE = re.compile(
    r"https?:|[a-z]+://|localhost|[0-9.:]+(?:/|\Z)|[0-9a-f]*:[0-9a-f:]+\Z|\S+:[0-9]+\Z|0x[0-9a-f]+"
)


def labelled(reading: Reading) -> Iterator[Found]:
    """Values whose label says that they are personal."""
    lower = reading.lower
    for start, end in sorted(found.span() for pattern in _SEPARATORS for found in pattern.finditer(lower)):
        label = lower[max(0, start - _LONGEST_LABEL) : start].rstrip(" \t\r\n\"'")
        endings = _LAST_TWO.get(label[-2:]) or _LAST_TWO.get(label[-1:])
        if endings is None or not label.endswith(endings) or (kind := _kind_of(label)) is None:
            continue
        if (found := _VALUE.match(lower, end)) is None:
            continue
        quoted = found["quoted"] is not None
        start, stop = found.span("quoted" if quoted else "bare")
        value = reading.text[start:stop].rstrip()
        if not quoted:
            value = _bare(kind, value)
        if value and says_something(kind, value, quoted=quoted):
            yield Found(start, start + len(value), "NAME" if kind == "PLAIN NAME" else kind)


@functools.lru_cache(maxsize=4096)
def _kind_of(label: str) -> str | None:
    found = _LABEL.search(label)
    return None if found is None else next(_GROUPS[name] for name in _GROUPS if found[name] is not None)


@functools.lru_cache(maxsize=4096)
def kind_of_key(key: str) -> str | None:
    """Return the kind of personal data that this key holds, `PLAIN NAME` if its value decides, or None."""
    if len(key) > _LONGEST_KEY:
        return None
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", fold(key)).lower()
    if (found := _KEY.fullmatch(plain)) is None:
        return None
    kind = next(_GROUPS[name] for name in _GROUPS if found[name] is not None)
    # Tools, models and spans have names too, and messages go from and to.
    return None if kind == "PLAIN NAME" and _PERSON.search(plain) is None else kind


def says_something(kind: str, value: str, *, quoted: bool = True) -> bool:
    """Whether a value under a label of this kind can be what the label says."""
    plain = fold(value).strip(" \t\r\n\"'.").lower()
    if not plain or plain in _NOTHING or plain.startswith("["):
        return False
    if kind == "PLAIN NAME":
        return is_like_a_name(fold(value))
    if kind in _WITH_DIGITS:
        return len(digits_of(plain)) >= (1 if quoted else 2)
    if kind == "ADDRESS":
        return (
            _ADDRESS_OF_MACHINE.match(plain) is None and "@" not in plain and (quoted or any(map(str.isdigit, plain)))
        )
    if kind == "EMAIL":
        return quoted or "@" in plain
    if kind == "CUSTOMER ID":
        return quoted or any(map(str.isdigit, plain))
    return quoted or is_like_a_name(fold(value))


def _bare(kind: str, value: str) -> str:
    if kind in {"ADDRESS", "DATE OF BIRTH"}:
        return value
    if kind in {"NAME", "PLAIN NAME"}:
        return re.split(r"[.!?(|](?:\s|\Z)|\s(?:and|is|was|has|aged?|born|who|with|for)\s", value, maxsplit=1)[
            0
        ].rstrip(" .)")
    if kind in _WITH_DIGITS:
        found = re.match(r"[\w+()/.\-]*(?:\s{1,3}[\w+()/.\-]*[0-9][\w+()/.\-]*)*(?:\s[a-dA-D]\b)?", value)
        return found[0].rstrip(".") if found is not None else ""
    return value.split(maxsplit=1)[0].rstrip(".)")


_THING = (
    r"(?:policy|plan|scheme|member(?:ship)?|pension|annuity|payroll|employee|staff|customer|client|case|claim|contract"
    r"|certificate|roll|investor|mortgage|loan|sipp|isa|portfolio|application|quote|quotation|scheme\smember)"
)
_NUMBERED = (
    "policy plan scheme member membership pension annuity payroll employee staff customer client case claim contract"
    " certificate roll investor mortgage loan sipp isa portfolio application quote quotation"
)
_THINGS = Words(
    {
        _NUMBERED: r"[\"'\s_.-]{0,2}(?:n[our]|ref|id|code)|[\"'\s_:#(-]{0,4}(?:is\s|of\s)?[a-z]{0,6}[-/]?[0-9]",
        "ref reference": "",
    }
)
_PLAN_NUMBER = re.compile(
    rf"[^a-z](?:{_THING}[\"'\s_.-]{{0,2}}(?:number|numbers|no|num|nr|ref|reference|id|code)\b|ref"
    rf"(?:erence)?(?:[\s_]?(?:number|no))?\b)"
    r"[\"'.]?(?:\s?[:=#]\s?|\s?\(|\s(?:is|was|are|of)[:\s]\s?|\s)[\"'#]{0,2}"
    r"(?P<id>(?:[a-z]{1,4}\s(?=[0-9]{5}))?(?=[a-z/_-]{0,12}[0-9])[0-9a-z](?:[0-9a-z/_-]|\s(?=[0-9])){2,40})(?![0-9a-z])"
)
_PLAN_TOKEN = re.compile(
    rf"[^a-z]{_THING}[\"'\s_:#(-]{{1,4}}(?:is\s|of\s)?(?P<id>[a-z]{{1,6}}[-/]?[0-9]"
    rf"(?:[-/ ]?[0-9]){{4,14}}[-/]?[a-z]{{0,3}}|[0-9]{{5,12}}[-/]?[a-z]{{1,3}}(?:[-/]?[0-9]{{1,6}})?)(?![0-9a-z])"
)
_PLAN_DIGITS = re.compile(
    r"[^a-z](?:policy|membership|payroll|plan|certificate|pension)\s?[:#]?\s?(?P<id>[0-9]{6,12}(?<!000))(?![0-9a-z%]|[.,][0-9])"
)
_YEARS = re.compile(r"(?:19|20)[0-9]{2}(?:[-/](?:[0-9]{2}|[0-9]{4}))?")


def plans(reading: Reading) -> Iterator[Found]:
    """Numbers of policies, plans, memberships and references."""
    text = " " + reading.lower
    for thing in _THINGS.found_in(reading):
        for pattern in (_PLAN_NUMBER, _PLAN_TOKEN, _PLAN_DIGITS):
            if (found := pattern.match(text, thing.start())) is None:
                continue
            token = found["id"].rstrip("-/_ ")
            if len(digits_of(token)) >= 3 and _YEARS.fullmatch(token) is None:
                place = found.start("id") - 1
                yield Found(place, place + len(token), "PLAN NUMBER")
