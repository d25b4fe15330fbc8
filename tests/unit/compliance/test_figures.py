"""Every figure of the knowledge base, said rightly and wrongly."""

from __future__ import annotations

from datetime import date

import pytest

from guidance_agent.compliance.figures import FigureChecker, FigureFinding
from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.knowledge.loader import load_knowledge

ON = date(2026, 11, 21)
CHECKER = FigureChecker(load_knowledge())


def check(text: str, before: str = "", on: date = ON) -> list[FigureFinding]:
    earlier = Words(tokens_of(before)) if before else None
    return CHECKER.check(Words(tokens_of(text)), text, on=on, before=earlier)


# Figure id, a sentence with a place for the figure, what is right, what is wrong.
SENTENCES = [
    ("personal-allowance", "The personal allowance is {} in 2026/27.", "£12,570", "£13,000"),
    ("higher-rate-threshold", "Higher-rate tax starts at {} in England.", "£50,270", "£45,500"),
    ("annual-allowance", "Your annual allowance for this tax year is {}.", "£60,000", "£65,000"),
    ("taper-threshold-income", "Threshold income has to be above {} before any taper.", "£200,000", "£180,000"),
    ("taper-adjusted-income", "The taper begins where adjusted income passes {}.", "£260,000", "£220,000"),
    (
        "taper-floor",
        "However high the income, the tapered allowance never falls to less than {}.",
        "£10,000",
        "£12,000",
    ),
    (
        "carry-forward-years",
        "You can carry forward what you did not use from the previous {} tax years.",
        "three",
        "four",
    ),
    ("money-purchase-annual-allowance", "The money purchase annual allowance is {} a year.", "£10,000", "£12,000"),
    ("lump-sum-allowance", "The lump sum allowance stands at {}.", "£268,275", "£250,000"),
    (
        "lump-sum-and-death-benefit-allowance",
        "The lump sum and death benefit allowance is {}.",
        "£1,073,100",
        "£1,500,000",
    ),
    ("tax-free-share", "Usually up to {} of the pot can be taken tax-free.", "25%", "30%"),
    ("relief-limit-gross", "Someone with no earnings sees the payment topped up to {}.", "£3,600", "£3,800"),
    (
        "relief-limit-net",
        "With no earnings, she can pay in {} and have it topped up by the government.",
        "£2,880",
        "£3,200",
    ),
    ("minimum-pension-age", "At present the normal minimum pension age is {}.", "55", "54"),
    ("minimum-pension-age-from-2028", "From 6 April 2028 the normal minimum pension age will be {}.", "57", "58"),
    (
        "iht-withholding-share",
        "The representatives may ask the scheme to withhold {} of the death benefits.",
        "50%",
        "40%",
    ),
    ("iht-withholding-months", "They may ask for benefits to be withheld for up to {}.", "15 months", "24 months"),
    ("iht-rate", "Inheritance tax is {} on what is above the bands.", "40%", "45%"),
    ("iht-nil-rate-band", "The nil-rate band is {}.", "£325,000", "£300,000"),
    ("iht-residence-nil-rate-band", "The residence nil-rate band adds up to {}.", "£175,000", "£200,000"),
    ("death-age-for-income-tax", "If he dies after {}, his heirs pay income tax on what they draw.", "75", "70"),
    ("unauthorised-payment-tax", "An unauthorised payment can be taxed at up to {}.", "55%", "45%"),
    (
        "salary-sacrifice-ni-limit",
        "From 6 April 2029 only the first {} of salary sacrifice escapes National Insurance.",
        "£2,000",
        "£3,000",
    ),
    ("auto-enrolment-trigger", "Workers who earn more than {} have to be enrolled.", "£10,000", "£12,000"),
    ("qualifying-earnings-lower", "Qualifying earnings run from {} to £50,270.", "£6,240", "£6,500"),
    ("qualifying-earnings-upper", "Qualifying earnings run from £6,240 to {}.", "£50,270", "£55,000"),
    ("auto-enrolment-minimum", "The legal minimum is {} of qualifying earnings in all.", "8%", "9%"),
    ("auto-enrolment-employer-minimum", "Your employer must put in at least {} of qualifying earnings.", "3%", "4%"),
    ("auto-enrolment-age", "Automatic enrolment covers workers aged {} and over.", "22", "18"),
    ("scottish-relief-at-source", "Relief at source is given at {} in Scotland, too.", "20%", "19%"),
    ("small-pot-limit", "A small pot is one of {} or less.", "£10,000", "£12,000"),
    ("small-pot-count", "You can cash at most {} personal pensions as small pots.", "three", "five"),
    ("ufpls-taxed-share", "With an UFPLS, {} is taxed as income.", "75%", "60%"),
    ("new-state-pension", "The full new State Pension is {} a week.", "£241.30", "£250.00"),
    ("new-state-pension-yearly", "The full new State Pension comes to about {} a year.", "£12,548", "£13,900"),
    ("basic-state-pension", "The full basic State Pension is {} a week.", "£184.90", "£190.00"),
    ("triple-lock-floor", "Under the triple lock it rises by the highest of earnings, prices and {}.", "2.5%", "3%"),
    ("triple-lock-rise-2026", "The State Pension went up by {} this April.", "4.8%", "5.2%"),
    ("full-qualifying-years", "You usually need {} qualifying years for the full new State Pension.", "35", "40"),
    ("minimum-qualifying-years", "At least {} qualifying years are needed to get any State Pension.", "10", "12"),
    ("state-pension-age-67", "Born in 1965, you have a State Pension age of {}.", "67", "65"),
    ("deferral-weeks", "Deferring adds 1% for every {}.", "nine weeks", "seven weeks"),
    ("deferral-yearly", "Deferring for a full year adds just under {}.", "5.8%", "7%"),
    ("pension-credit-single", "For a single person Pension Credit tops income up to {} a week.", "£238.00", "£245.00"),
    ("pension-credit-couple", "For a couple Pension Credit tops income up to {} a week.", "£363.25", "£380.00"),
    ("ni-gap-years", "Gaps in your record can often be filled for the past {}.", "six years", "ten years"),
    ("pension-wise-age", "Pension Wise appointments are for people aged {} or over.", "50", "60"),
    ("wake-up-pack-age", "The first wake-up pack comes around age {}.", "50", "55"),
    (
        "ombudsman-wait-weeks",
        "The firm has {} to answer your complaint before the ombudsman can look at it.",
        "eight weeks",
        "twelve weeks",
    ),
    ("ombudsman-months", "You have {} from the final response to go to the ombudsman.", "six months", "three months"),
    ("fscs-deposits", "The FSCS covers up to {} in a bank account.", "£120,000", "£100,000"),
    ("fscs-temporary-high-balance", "The FSCS limit for temporary high balances is {}.", "£1.4 million", "£2 million"),
    ("fscs-temporary-months", "Temporary high balances are covered for {}.", "six months", "twelve months"),
    ("fscs-investments", "For investments, the FSCS covers up to {} per firm.", "£85,000", "£90,000"),
    ("fscs-insured-pensions", "The FSCS covers {} of an annuity.", "100%", "90%"),
    (
        "ppf-over-pension-age",
        "The Pension Protection Fund pays {} to those already over the scheme's pension age.",
        "100%",
        "85%",
    ),
    ("ppf-others", "The Pension Protection Fund generally pays {} to others.", "90%", "75%"),
    (
        "ppf-pre-1997-cap",
        "From January 2027 the PPF is to raise pre-1997 benefits by inflation, up to {}.",
        "2.5%",
        "5%",
    ),
    ("db-advice-threshold", "Advice is compulsory where the transfer value is above {}.", "£30,000", "£40,000"),
    ("cetv-guarantee-months", "A transfer value is normally guaranteed for {}.", "three months", "six months"),
    ("cold-call-fine", "A pensions cold call can bring a fine of up to {}.", "£500,000", "£50,000"),
    (
        "targeted-support-capital",
        "A firm that gives targeted support must hold capital of at least {}.",
        "£500,000",
        "£50,000",
    ),
    (
        "risk-question-limit",
        "Firms need not ask the risk questions where the savings are {} or less.",
        "£10,000",
        "£15,000",
    ),
]


@pytest.mark.parametrize(("figure", "sentence", "right", "wrong"), SENTENCES, ids=[each[0] for each in SENTENCES])
def test_a_right_figure_passes_and_a_wrong_one_is_found(figure: str, sentence: str, right: str, wrong: str) -> None:
    assert check(sentence.format(right)) == []
    text = sentence.format(wrong)
    found = check(text)
    assert len(found) == 1
    assert text[found[0].start : found[0].end] == found[0].said
    assert found[0].said.startswith(wrong)
    assert found[0].figure == figure
    assert found[0].check in ("figure_amount", "figure_year")
    assert 0 < found[0].score <= 1


def test_every_figure_of_the_knowledge_base_belongs_to_a_topic() -> None:
    known = {value.figure for topic in CHECKER.topics for value in topic.values}

    assert {figure.id for figure in load_knowledge().figures} <= known


def test_every_figure_that_holds_today_has_a_sentence_of_its_own() -> None:
    held = {figure.id for figure in load_knowledge().figures_on(ON)}

    assert held <= {each[0] for each in SENTENCES}


def test_a_finding_tells_what_is_right_and_when_and_by_which_fact() -> None:
    [found] = check("The full new State Pension is £250 a week.")

    assert (found.check, found.said) == ("figure_amount", "£250")
    assert (found.right, found.period, found.fact) == ("£241.30 a week", "tax year 2026/27", "ST-01")


def test_offsets_point_into_the_text_and_not_into_the_sentence() -> None:
    text = "Good question. The annual allowance is £45,000."
    place = text.index("The")

    [found] = CHECKER.check(Words(tokens_of(text[place:], place)), text, on=ON)

    assert text[found.start : found.end] == "£45,000"


WRITTEN = [
    "The annual allowance is £40k this year.",
    "The annual allowance is forty thousand pounds this year.",
    "The annual allowance is forty thousand this year.",
    "The annual allowance is £ 40,000 this year.",
    "The annual allowance is ￡４０,０００ this year.",
    "The annual allowance is £40,000.00 this year.",
    "The annual allowance is 40,000 pounds this year.",
    "The annual allow\u200bance is £40,000 this year.",
    "This year, £40,000 is the annual allowance.",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_an_amount_is_understood_however_it_is_written(text: str) -> None:
    assert [found.check for found in check(text)] == ["figure_year"]


LEFT_ALONE = [
    "With £45,000 in your pot you have several options.",
    "You told me that you earn £45,000 a year.",
    "Your annual allowance is not used up by the £45,000 in your pot.",
    "On a pot of £80,000 the tax-free part would be up to £20,000.",
    "Say you draw £15,000 a year from the pot; that is added to your income.",
    "You are 61, and your State Pension starts later.",
    "Ring MoneyHelper on 0800 011 3797 between nine and five.",
    "One of the 3 forms is P55, and another is P53Z.",
    "At 48 you can't normally take pension money, as the earliest age is 55, rising to 57 on 6 April 2028.",
    "Once it's in, you couldn't normally reach it until 57.",
    "Your final salary scheme pays from 60, and from 65 in its later section.",
    "You have £15,000 of annual allowance left this year.",
    "Nine weeks is a long time to wait for an answer.",
    "The firm has offered you £1,000 to sign within seven days.",
]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_a_number_that_is_no_figure_is_left_alone(text: str) -> None:
    assert check(text) == []


def test_a_question_makes_clear_what_a_bare_answer_is_about() -> None:
    question = "What is the money purchase annual allowance these days?"

    assert [found.said for found in check("It's £15,000.", before=question)] == ["£15,000"]
    assert check("It's £10,000.", before=question) == []
    assert check("It's £15,000.") == []


def test_a_birth_date_in_the_question_decides_the_state_pension_age() -> None:
    assert check("Your State Pension age is 67.", before="I was born in June 1970.") == []
    assert [found.right for found in check("Your State Pension age is 66.", before="I was born in June 1970.")] == [
        "age 67"
    ]


@pytest.mark.parametrize(
    "text", ["", "£", "£.", "%", "£££", "...", "1/2/3", "2026/28", "31 February 2027", "0", "£0", "-5"]
)
def test_odd_input_gives_no_finding(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    "text", ["9" * 1_000_000, "£1," * 100_000, "annual allowance £40,000 " * 10_000, "a third " * 50_000]
)
@pytest.mark.timeout(20)
def test_endless_input_ends(text: str) -> None:
    assert len(check(text)) <= 1
