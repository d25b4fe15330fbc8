"""Personal numbers by their form: National Insurance, telephone, bank, card, NHS, licences, postcodes, addresses.

A form that figures of ours share (eight digits, ten digits) counts only beside a word that says what it is, or where
its check digit is right.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from guidance_agent.tracing.redaction_rules import ALONE, GAP, Found, cued, digits_of, listed, words_of
from guidance_agent.tracing.redaction_views import Reading

__all__ = [
    "accounts",
    "cards",
    "driving_licences",
    "emails",
    "ibans",
    "nhs_numbers",
    "ni_numbers",
    "passports",
    "phones",
    "postcodes",
    "sort_codes",
    "spoken_digits",
    "tax_references",
]

_DOMAIN = re.compile(r"@[\w-]+(?:\.[\w-]+)+|@\[[0-9.:a-f]{7,45}\]")
_LOCAL = "abcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+/=?^_`{|}~-"
_SPOKEN_EMAIL = re.compile(
    r"(?<![\w.-])[\w.+-]{1,64}(?: ?(?:dot|\.|underscore|dash) ?[\w+-]{1,64}){0,3}\s?[\[(]?\b(?:at"
    r"|@)\b[\])]?\s?[\w-]{1,63}"
    r"(?:\s?[\[(]?\bdot\b[\])]?\s?[\w-]{1,63}){1,4}"
)


def emails(reading: Reading) -> Iterator[Found]:
    """E-mail addresses, also spelt out (`jane at example dot com`)."""
    text = reading.lower
    for found in _DOMAIN.finditer(text):
        start, stop = found.span()
        if text[start - 1 : start] == '"' and (quote := text.rfind('"', max(0, start - 66), start - 1)) >= 0:
            local = quote
        else:
            near = text[max(0, start - 64) : start]
            local = start - (len(near) - len(near.rstrip(_LOCAL)))
            while local > 0 and start - local < 64 and text[local - 1].isalpha():
                near = text[max(0, start - 64) : local - 1]
                local = local - 1 - (len(near) - len(near.rstrip(_LOCAL)))
            local += len(text[local:start]) - len(text[local:start].lstrip("'`{=/?&.|"))
        domain = text[start + 1 : stop].rstrip("_-")
        last = domain.rpartition(".")[2]
        is_domain = domain.startswith("[") or (len(last) > 1 and not last.isdigit())
        if local < start and is_domain and text[local:stop] not in words_of("public_contacts"):
            yield Found(local, stop, "EMAIL")
    if "@" in text:
        yield from _loosely_written(text)
    if " dot " in text or "(dot)" in text or "[dot]" in text:
        for found in _SPOKEN_EMAIL.finditer(text):
            yield Found(*found.span(), "EMAIL")


_LOOSE_DOMAIN = re.compile(
    r"@\s?[\w-]{1,63}(?:\s?[.,]\s?[\w-]{1,63}){0,3}?\s?[.,]\s?(?:com|co\s?[.,]\s?uk|org|net|uk|io|info|me|ie|eu)(?![\w@])"
)
_LOOSE_LOCAL = re.compile(r"[\w+-]{1,64}(?:\s?\.\s?[\w+-]{1,64}){0,3}\s?\Z")


def _loosely_written(text: str) -> Iterator[Found]:
    """Find `jane . smith @ example , com`, as people and speech recognition write."""
    for found in _LOOSE_DOMAIN.finditer(text):
        local = _LOOSE_LOCAL.search(text, max(0, found.start() - 80), found.start())
        if local is not None and "".join(text[local.start() : found.end()].split()) not in words_of("public_contacts"):
            yield Found(local.start(), found.end(), "EMAIL")


_DIGIT_WORD = r"(?:zero|oh|nought|one|two|three|four|five|six|seven|eight|nine|double|triple|treble|hundred)"
_SPOKEN_TWICE = re.compile(
    r"[\s,-](?:z(?=e)|o(?=[hn])|n(?=[io])|t(?=[hrw])|f(?=[io])|s(?=[ei])|e(?=i)|d(?=o)|h(?=u))"
    r"(?<=[\s,-].)[a-z]{1,6}[\s,-]{1,3}" + _DIGIT_WORD
)
_DIGIT_WORDS = listed(_DIGIT_WORD[3:-1].replace("|", " "))
_LEAST_SPOKEN = 5
_SPOKEN_DIGITS = re.compile(_DIGIT_WORD + rf"(?:[\s,-]{{1,3}}{_DIGIT_WORD}){{6,40}}\b")


def spoken_digits(reading: Reading) -> Iterator[Found]:
    """Numbers read out digit by digit."""
    text = reading.lower
    spoken = _DIGIT_WORDS & reading.words
    if sum(map(text.count, spoken)) < _LEAST_SPOKEN or _SPOKEN_TWICE.search(text) is None:
        return
    for found in _SPOKEN_DIGITS.finditer(text):
        yield Found(*found.span(), "NUMBER")


_NI_PREFIX = r"[a-ceghj-pr-tw-z][a-ceghj-npr-tw-z]|qq|tn|oo|ii"
_NI_LETTERS = re.compile(rf"(?<![0-9a-z])(?:{_NI_PREFIX})[\s./-]{{0,3}}\Z")
_NI = re.compile(
    r"[0-9](?<=[a-z\s./-].)(?:(?<=[a-z]{2}.)(?<![0-9a-z]...)|(?<=[a-z]{2}[\s./-].)(?<![0-9a-z]....)"
    r"|(?<=[a-z]{2}[\s./-]{2}.)(?<![0-9a-z].....)|(?<=[a-z]{2}[\s./-]{3}.)(?<![0-9a-z]......))"
    r"(?:[0-9]{5}|[0-9](?P<gap>[\s./-]{1,3})[0-9]{2}(?P=gap)[0-9]{2}|[0-9]{2}[\s./-]{1,3}[0-9]{3}"
    r"|[0-9]{3}[\s.-]{1,3}[0-9]{2}|[0-9][\s.-]{1,3}[0-9]{4}|(?:[\s./-]{1,3}[0-9]){5}|(?P<mixed>"
    r"(?:[\s./-]{0,3}[0-9]){5}))"
    r"(?P<suffix>[\s./-]{0,3}[a-dfmp](?![0-9a-z]))?(?![0-9])"
)
_NI_DIGITS_SPACED = re.compile(r"[0-9](?<=[\s./-].)(?:[\s./-]{1,3}[0-9]){5}(?:[\s./-]{1,3}[a-dfmp])?(?![0-9a-z])")
_NI_LETTERS_SPACED = re.compile(r"(?<![0-9a-z])[a-z][\s./-]{1,3}[a-z][\s./-]{1,3}\Z")
_NI_CUE = re.compile(r"\bni(?:no)?\b|n\.i\.|national\s?insurance|\bnino|[\"'_.]ni[\"'_.]|ni_?number")
_YEARS = re.compile(r"(?:19|20)[0-9]{2}[\s./-]{1,3}[0-9]{2}|[0-9]{2}[\s.-]{1,3}(?:19|20)[0-9]{2}")


def ni_numbers(reading: Reading) -> Iterator[Found]:
    """National Insurance numbers, temporary ones and the example prefix QQ among them."""
    text = reading.lower
    dates = (found for start in reading.dates if (found := _NI.match(text, start)) is not None)
    for found in itertools.chain(reading.numbers(_NI), dates):
        first, stop = found.span()
        if (letters := _NI_LETTERS.search(text, max(0, first - 5), first)) is None:
            continue
        start = letters.start()
        written = reading.text[start : start + 2]
        digits = text[first : found.start("suffix") if found["suffix"] else stop]
        if found["suffix"] is None:
            # Two letters and six digits are also how products and prompts are numbered.
            sure = found["gap"] is not None and written.isupper()
            if not (sure or cued(_NI_CUE, text, start, stop, after=30)):
                continue
        elif (
            (_YEARS.fullmatch(digits) or (found["mixed"] is not None and not written.isupper()))
            and not cued(_NI_CUE, text, start, stop)
        ) or (text[start - 1 : start] in "-_" and start and len(digits) == 6 and written.islower()):
            continue
        yield Found(start, stop, "NI NUMBER")
    for found in reading.numbers(_NI_DIGITS_SPACED):
        if (letters := _NI_LETTERS_SPACED.search(text, max(0, found.start() - 8), found.start())) is not None:
            yield Found(letters.start(), found.end(), "NI NUMBER")


_DATE = r"(?![1-9][.\-\s][0-9]{2}[.\-\s](?:19|20)[0-9]{2}(?![0-9]))"
_UK = (
    r"44\)?[\s.-]{0,3}(?:\(\s?0?\s?\)[\s.-]{0,3}|0[\s-]{0,2})?\(?[1-9](?:[\s.()-]{0,3}[0-9]){8,9}(?![0-9]"
    r"|[a-f][0-9a-f]{2})"
)
_EXTENSION = r"(?:,?\s?(?:x|ext\.?|extension)\s?[0-9]{1,5})?"
_PHONES = (
    re.compile(
        "0"
        + ALONE
        + _DATE
        + r"(?:0\s?"
        + _UK
        + r"|[\s-]{0,2}[1-9](?:[\s.()-]{0,3}[0-9]){8,9}(?![0-9]|[a-f][0-9a-f]{2})"
        r"|0\s?[1-9][0-9](?:[\s.()-]{0,3}[0-9]){7,12}(?![0-9]))" + _EXTENSION
    ),
    re.compile(r"\+(?<![0-9a-z+].)\s?(?:" + _UK + r"|[1-9](?:[\s.()-]{0,3}[0-9]){8,13}(?![0-9]))" + _EXTENSION),
    re.compile(r"o(?<![0-9a-z].)[\s-]{0,2}[127](?:[\s.()-]{0,3}[0-9]){9}(?![0-9])"),
)
_PHONE_WITHOUT_ZERO = re.compile(
    r"[47]"
    + ALONE
    + r"(?:(?<=4)4[\s.-]{0,3}(?:\(0\)\s?)?7|(?<=7))[0-9]{3}[\s.-]{0,3}[0-9]{3}[\s.-]{0,3}[0-9]{3}(?![0-9])"
)
_PHONE_PART = re.compile(r"[1-9]" + ALONE + r"[0-9]{2,4}[\s.-]{0,2}[0-9]{3,4}(?![0-9]|[.,][0-9])")
_PHONE_CUE = re.compile(r"phone|mobile|\bmob\b|\btel\b|telephone|landline|whatsapp|\bfax\b|\bcell\b|msisdn|\bsms\b")
_CALL_CUE = re.compile(
    r"(?:phone|mobile|tel|telephone|landline|call|ring|text|reach|whatsapp)(?:[\s_-]?(?:number|no\.?))?(?:\s(?:me"
    r"|him|her|us|them))?"
    r"(?:\s(?:on|at|is))?[\"'\s:=#]{0,4}\Z"
)
_UK_CODE = re.compile(r"\A(?:0044|44)0?")


def phones(reading: Reading) -> Iterator[Found]:
    """Telephone numbers of people; freephone and public bodies' numbers are how customers are signposted."""
    text = reading.lower
    for found in (one for pattern in _PHONES for one in reading.numbers(pattern)):
        digits = digits_of(found[0].replace("o", "0"))
        national = _UK_CODE.sub("0", digits) if "+" in found[0] or digits.startswith("00") else digits
        if not national.startswith(("0800", "0808", "0300")) and national not in words_of("public_contacts"):
            opened = text[found.start() - 1 : found.start()] == "(" and ")" in found[0]
            yield Found(found.start() - opened, found.end(), "PHONE")
    for found in reading.numbers(_PHONE_WITHOUT_ZERO):
        if cued(_PHONE_CUE, text, *found.span(), after=25) or cued(_CALL_CUE, text, *found.span()):
            yield Found(*found.span(), "PHONE")
    for found in reading.numbers(_PHONE_PART):
        if cued(_CALL_CUE, text, *found.span(), before=40):
            yield Found(*found.span(), "PHONE")


_SORT_CODE = re.compile(
    r"[0-9]" + ALONE + r"(?<![0-9]-.)[0-9](?P<gap> ?[-/.\s_] ?|)[0-9]{2}(?P=gap)[0-9]{2}(?![0-9]|[.,][0-9])"
)
_SORT_CUE = re.compile(r"sort[\s_-]?code|sortcode|s/c\b|bank|account|acct|a/c\b|\bsort\b")
_ACCOUNT_BESIDE = re.compile(r"[^0-9]{0,40}(?<![0-9])[0-9]{4}[ -]?[0-9]{4}(?![0-9])")


def sort_codes(reading: Reading) -> Iterator[Found]:
    """Sort codes; with hyphens they need no cue, in other spellings they do."""
    text = reading.lower
    for found in reading.numbers(_SORT_CODE):
        start, stop = found.span()
        gap = found["gap"].strip() if found["gap"] else ""
        beside = found["gap"] == " " and _ACCOUNT_BESIDE.match(text, stop) is not None
        said = (
            cued(_SORT_CUE, text, start, stop, before=40, after=15)
            and not (gap == "/" and _is_day(found[0]))
            and not _under_another_label(text, start)
        )
        if gap == "-" or beside or said:
            yield Found(start, stop, "SORT CODE")


def _is_day(text: str) -> bool:
    digits = digits_of(text)
    return "01" <= digits[:2] <= "31" and "01" <= digits[2:4] <= "12"


_ACCOUNT = re.compile(
    r"[0-9](?<![0-9a-z£$€./].)(?<![0-9][,:].)(?:[0-9]{5,9}|[0-9]{3}[ -][0-9]{4}|[0-9](?: [0-9]{2}){3})(?![0-9a-z%]"
    r"|[.,][0-9])"
)
_ACCOUNT_CUE = re.compile(
    r"account|\bs/?c\b|\bsort\b"
    r"|\bacct?\b|\ba/c\b|\bacc no|sort[\s_-]?code|\bbank\b|building society|\broll (?:number|no)|payee"
)
_AFTER_SORT_CODE = re.compile(r"[0-9]{2}([-\s/.]{0,2})[0-9]{2}\1[0-9]{2}[^0-9]{1,40}\Z|[0-9]{2}-[0-9]{2}-[0-9]{2}\Z")
_FIGURE_LABEL = re.compile(
    r"(?<![a-z])(?:tokens?|[a-z]+_count|count|total|ms|ns|bytes|size|amount|value|gbp|length|offset|time|timestamp"
    r"|seed|balance|worth|pot|£)"
    r"[\"']?\s?[:=]?\s?\Z"
)
_FIGURE_UNIT = re.compile(r"\s?(?:tokens?|bytes|characters|ms\b|pounds|gbp|calls|rows|requests|seconds|members|people)")
_ENDING = re.compile(
    r"(?P<of>account|card|acct)(?:\s(?:number|no\.?))?\s(?:that\s)?(?:ending|ends|end)(?:\s(?:in|with))?\s"
    r"(?P<digits>[0-9]{3,4})(?![0-9])"
)

_ENDS = listed("ending ends end")


def accounts(reading: Reading) -> Iterator[Found]:
    """Account numbers: beside a sort code, or near a word that says so."""
    text = reading.lower
    for found in reading.numbers(_ACCOUNT):
        start, stop = found.span()
        if _ACCOUNT_FOLLOWS.match(text, stop) is not None or _BEFORE_SORT_CODE.match(text, stop) is not None:
            yield Found(start, stop, "ACCOUNT NUMBER")
            continue
        if (
            found[0].endswith("000")
            or _under_another_label(text, start)
            or _FIGURE_UNIT.match(text, stop)
            or _FIGURE_LABEL.search(text, max(0, start - 20), start)
        ):
            continue
        if cued(_ACCOUNT_CUE, text, start, stop, before=60, after=30) or _AFTER_SORT_CODE.search(
            text, max(0, start - 50), start
        ):
            yield Found(start, stop, "ACCOUNT NUMBER")
    for found in _ENDING.finditer(text) if not _ENDS.isdisjoint(reading.words) else ():
        yield Found(*found.span("digits"), "CARD" if found["of"] == "card" else "ACCOUNT NUMBER")


_ACCOUNT_FOLLOWS = re.compile(
    r"\)?(?:\s(?:is|was)|,|\s?-|\s?\()?\s?(?:my|the|our|his|her|your|their)?\s?(?:bank\s|current\s"
    r"|savings\s)?(?:account|acct)\b"
)
_BEFORE_SORT_CODE = re.compile(r"[^0-9]{1,20}[0-9]{2}-[0-9]{2}-[0-9]{2}(?![0-9-])")
_LABEL_BEFORE = re.compile(r"(?P<label>[a-z][a-z0-9_ .()/'-]{0,40})[\"']?\s?[:=]\s?[\"']?\Z")
_SPEAKERS = re.compile(
    r"(?:\b|_)(?:customer|user|assistant|advis[oe]r|agent|you|me|a|q|content|text|message|value|input|output"
    r"|question|answer)\Z"
)


def _under_another_label(text: str, start: int) -> bool:
    """Whether a field's own name says that the figure is something else."""
    near = text[max(0, start - 46) : start]
    if near.rstrip(" \"'")[-1:] not in {":", "="} or (found := _LABEL_BEFORE.search(near)) is None:
        return False
    return _ACCOUNT_CUE.search(found["label"]) is None and _SPEAKERS.search(found["label"]) is None


_CARD = re.compile(r"[0-9]" + ALONE + r"(?:[\s.\-]{0,2}[0-9]){11,18}(?![0-9])")
_CARD_GROUPS = re.compile(
    r"[0-9]"
    + ALONE
    + r"(?:[0-9]{3}(?:[\s.\-_/]{1,3}[0-9]{4}){3}|(?<=3)[47][0-9]{2}[\s.\-]{1,3}[0-9]{6}[\s.\-]{1,3}[0-9]{5})(?![0-9])"
)
_CARD_CUE = re.compile(r"\bcards?\b|card_?number|cardnumber|\bvisa\b|mastercard|amex|american express|debit|\bpan\b")
_EXPIRY_SIGNS = ("expir", "exp ", "exp.", "exp:", "exp=", 'exp"', "exp'", "exp0", "exp1", "expdate")
_CARD_DETAIL = re.compile(
    r"(?:cvv2?|cvc2?|security code|card pin|\bpin(?: number| code| is|:))(?:\s(?:is|number|code))?[\"'\s:=]{0,4}"
    r"(?P<digits>[0-9]{3,6})(?![0-9])"
    r"|(?:expiry|expires|expiration|exp\.?|valid (?:to|until|thru))(?:\s?date)?(?:\sis)?[\"'\s:=]{0,4}"
    r"(?P<expiry>[01][0-9]\s?[/-]\s?(?:20)?[0-9]{2})(?![0-9])"
)


def cards(reading: Reading) -> Iterator[Found]:
    """Payment cards: by their groups, by issuer and check digit, or near a word that says so."""
    text = reading.lower
    for found in reading.numbers(_CARD_GROUPS):
        digits = digits_of(found[0])
        if digits[0] in "23456" or luhn(digits) or cued(_CARD_CUE, text, *found.span(), after=25):
            yield Found(*found.span(), "CARD")
    for found in reading.numbers(_CARD):
        digits = digits_of(found[0])
        plain = len(found[0]) == len(digits)
        if (_issued(digits) and (luhn(digits) or (plain and len(digits) == 16))) or cued(
            _CARD_CUE, text, *found.span(), after=25
        ):
            yield Found(*found.span(), "CARD")
    for found in _CARD_DETAIL.finditer(text) if _tells_of_cards(reading) else ():
        yield Found(*found.span("digits" if found["digits"] else "expiry"), "CARD")


def _tells_of_cards(reading: Reading) -> bool:
    text, words = reading.lower, reading.words
    if "pin" in words or ("code" in words and "security code" in text) or "valid " in text:
        return True
    return ("cv" in text and ("cvv" in text or "cvc" in text)) or (
        "exp" in text and any(sign in text for sign in _EXPIRY_SIGNS)
    )


def _issued(digits: str) -> bool:
    return len(digits) >= 13 and (digits[0] in "3456" or "2221" <= digits[:4] <= "2720")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of ISO/IEC 7812."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


_IBAN_BEGIN = re.compile(
    r"[0-9](?=[0-9])(?<=[a-z -].)(?:(?<=[a-z]{2}.)(?<![0-9a-z][a-z]{2}.)|(?<=[a-z]{2}[ -].)(?<![0-9a-z][a-z]{2}[ -].))"
)
_IBAN = re.compile(r"[0-9](?<=[a-z -].)[0-9](?:[ -]?[0-9a-z]{2,4}){3,9}(?![0-9a-z])")
_IBAN_UK = re.compile(rf"gb(?<![0-9a-z]gb){GAP}[0-9]{{2}}{GAP}[a-z]{{4}}(?:{GAP}[0-9]){{14}}(?![0-9])")
_IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in listed(
        "ad24 ae23 al28 at20 ba20 be16 bg22 br29 by28 ch21 cr22 cy28 cz24 de22 dk18 do28 ee20 eg29 es24 fi18 fo18 "
        "fr27 gb22 ge22 gi23"
        " gl18 gr27 gt28 hr21 hu28 ie22 il23 iq23 is26 it27 jo30 kw30 kz20 lb28 li21 lt20 lu20 lv21 ly25 mc27 md24 "
        "me22 mk19 mr27 mt31"
        " mu30 nl18 no15 pk24 pl28 ps29 pt25 qa29 ro24 rs22 sa24 sc31 se24 si19 sk24 sm27 sv28 tl23 tn24 tr26 ua29 "
        "va22 vg24 xk20"
    )
}
_COUNTRY = re.compile(r"(?<![0-9a-z])[a-z]{2}[ -]?\Z")
_IBAN_WORDS = listed("iban bic swift")
_IBAN_CUE = re.compile(r"\biban\b|\bbic\b|swift")
_BIC = re.compile(
    r"[bs](?<!\w.)(?:(?<=b)ic|(?<=s)wift)(?:\s?(?:code|is))?[\"'\s:=/]{0,4}(?P<code>[a-z]{6}[0-9a-z]{2}(?:[0-9a-z]{3})?)(?![0-9a-z])"
)


def ibans(reading: Reading) -> Iterator[Found]:
    """International account numbers, by check digits, by the British form, or after the word."""
    text = reading.lower
    for found in _IBAN_UK.finditer(text):
        yield Found(*found.span(), "IBAN")
    for found in _with_check_digits(reading):
        stop = found.end()
        if (country := _COUNTRY.search(text, max(0, found.start() - 4), found.start())) is None:
            continue
        start = country.start()
        length = _IBAN_LENGTHS.get(text[start : start + 2], 0)
        while length and stop - start >= length:
            code = re.sub("[ -]", "", text[start:stop])
            if len(code) == length and len(digits_of(code)) >= 8 and _mod97(code):
                yield Found(start, stop, "IBAN")
                break
            stop = max(text.rfind(" ", start, stop), text.rfind("-", start, stop))
        else:
            if cued(_IBAN_CUE, text, start, found.end(), before=30):
                yield Found(start, found.end(), "IBAN")
    for found in _BIC.finditer(text) if "bic" in text or "swift" in text else ():
        yield Found(*found.span("code"), "IBAN")


def _with_check_digits(reading: Reading) -> Iterator[re.Match[str]]:
    text = reading.lower
    if not _IBAN_WORDS.isdisjoint(reading.words) or "swift" in text:
        yield from _IBAN.finditer(text)
        return
    # Without such a word a country's letters decide, and before most figures there are none.
    for begin in _IBAN_BEGIN.finditer(text):
        place = begin.start() - (text[begin.start() - 1] in " -")
        if text[place - 2 : place] in _IBAN_LENGTHS and (found := _IBAN.match(text, begin.start())) is not None:
            yield found


def _mod97(code: str) -> bool:
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


_NHS = re.compile(r"[0-9]" + ALONE + r"[0-9]{2}(?P<gap>[\s.\-]{0,3})[0-9]{3}(?P=gap)[0-9]{4}(?![0-9])")
_NHS_CUE = re.compile(r"\bnhs\b|health service|medical (?:number|record)|patient|\bchi\b")


def nhs_numbers(reading: Reading) -> Iterator[Found]:
    """NHS numbers: in their groups with a right check digit, or near the word."""
    text = reading.lower
    for found in reading.numbers(_NHS):
        digits = digits_of(found[0])
        if (found["gap"] and _mod11(digits)) or cued(_NHS_CUE, text, *found.span(), before=40, after=20):
            yield Found(*found.span(), "NHS NUMBER")


def _mod11(digits: str) -> bool:
    check = 11 - sum((10 - place) * int(digit) for place, digit in enumerate(digits[:9])) % 11
    return check % 11 == int(digits[9]) and check != 10


_UTR = re.compile(r"[0-9]" + ALONE + r"[0-9]{4}[\s.\-]{0,2}[0-9]{5}k?(?![0-9a-z])")
_UTR_JOINED = re.compile(r"utr[0-9]{10}(?![0-9])")
_UTR_CUE = re.compile(
    r"\butr\b|taxpayer ref|self[\s-]assessment (?:ref|number)|tax(?:payer)? (?:ref|number|id)|_utr|utr_"
)


def tax_references(reading: Reading) -> Iterator[Found]:
    """Unique Taxpayer References, near a word that says so: ten digits are also a time stamp."""
    text = reading.lower
    for found in reading.numbers(_UTR):
        if cued(_UTR_CUE, text, *found.span(), before=50, after=20):
            yield Found(*found.span(), "UTR")
    for found in reading.numbers(_UTR_JOINED):
        yield Found(*found.span(), "UTR")


_PASSPORT = re.compile(r"(?<![0-9a-z£])[a-z]{0,2}[0-9](?:[ -]?[0-9]){5,8}(?![0-9a-z])")
_PASSPORT_CUE = re.compile(r"passport")
_MACHINE_READABLE = re.compile(
    r"(?<![0-9a-z<])[pi][a-z<][a-z<]{3}[a-z]{1,38}<<[a-z<]{1,39}|"
    r"(?<![0-9a-z])[0-9a-z<]{9}[0-9][a-z<]{3}[0-9]{7}[mfx<][0-9]{7}[0-9a-z<]{2,18}"
)


def passports(reading: Reading) -> Iterator[Found]:
    """Passport numbers near the word, and the machine-readable lines."""
    text = reading.lower
    if "passport" in text:
        for found in reading.numbers(_PASSPORT, dates=True):
            if cued(_PASSPORT_CUE, text, *found.span(), before=50, after=20):
                yield Found(*found.span(), "PASSPORT")
    if "<<" in text:
        for found in _MACHINE_READABLE.finditer(text):
            if "<" in found[0]:
                yield Found(*found.span(), "PASSPORT")


_LICENCE_START = re.compile(r"(?<![0-9a-z])[a-z][a-z9]{4}[\s-]?\Z")
_LICENCE = re.compile(
    r"[0-9](?<=[a-z9\s-].)[0156][0-9][0-3][0-9]{2}[\s-]?[a-z][a-z9][\s-]?[0-9a-z]{3}(?:[\s-]?[0-9]{2})?(?![0-9a-z])"
)


def driving_licences(reading: Reading) -> Iterator[Found]:
    """British driving licence numbers."""
    text = reading.lower
    for found in reading.numbers(_LICENCE):
        if (letters := _LICENCE_START.search(text, max(0, found.start() - 7), found.start())) is not None:
            yield Found(letters.start(), found.end(), "DRIVING LICENCE")


_OUTWARD = re.compile(r"(?<![0-9a-z])(?P<area>[a-z]{1,2}(?=[0-9])|gir)(?:[0-9][0-9a-z]?)?[\s.\-]{0,3}\Z")
_POSTCODE = re.compile(r"[0-9][abd-hjlnp-uw-z]{2}(?![0-9a-z])")


def postcodes(reading: Reading) -> Iterator[Found]:
    """Full postcodes of areas that exist."""
    for found in _POSTCODE.finditer(reading.lower):
        outward = _OUTWARD.search(reading.lower, max(0, found.start() - 8), found.start())
        if outward is not None and (outward["area"] in words_of("postcode_areas") or outward["area"] == "gir"):
            yield Found(outward.start(), found.end(), "POSTCODE")
