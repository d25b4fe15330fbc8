"""Fit the models of the gate, and say how they do on sentences of authors that they have not seen.

    python -m fitting            # cross-validate, fit on everything, write the models
    python -m fitting --check    # cross-validate only

Every sentence is judged by models that were fitted without its author, and the thresholds are chosen from those scores:
a model knows its own sentences by heart, and so do the people who wrote them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fitting.design import Design
from fitting.labelled import CHECKS, Labelled, read_labelled, spoken_words, written_words
from fitting.linear import fit_linear, stored_linear
from fitting.network import Training, fit_network, scaled
from fitting.writing import write_models
from guidance_agent.compliance.sentence_model import LinearModel, highest_sum

PARTS = 6
"""Parts of the authors that are left out in turn."""
CUE_RECALL = 0.968
DECIDED_FALSE = 0.045
DECIDED_ORDINARY = 0.0045
DOUBTED_RECALL = 0.85
CUE_SHARE = 0.3
"""How much the cue's score counts beside the network's."""
CUE_WORTH = {"breach": 1.0, "permitted": 0.07, "ordinary": 10.0}
BREACH_WORTH = {"breach": 1.0, "permitted": 1.0, "ordinary": 5.0}


class Sentences:
    """All sentences with their features; `text` is the number of the labelled text that each belongs to."""

    def __init__(self, texts: Sequence[Labelled]) -> None:
        self.texts = texts
        self.text = np.array([number for number, text in enumerate(texts) for _ in text.sentences])
        each = [sentence for text in texts for sentence in text.sentences]
        self.written = Design([written_words(sentence) for sentence in each])
        self.spoken = Design([spoken_words(sentence) for sentence in each])
        self.rows = scaled(self.spoken.matrix)
        self.kinds = np.array([text.kind for text in texts])
        self.authors = np.array([text.author for text in texts])
        alone = np.array([text.kind != "breach" or len(text.sentences) == 1 for text in texts])
        self.labels = (self.kinds == "breach")[self.text].astype(float)
        self.learned = alone[self.text]

    def worth(self, of_kind: dict[str, float]) -> np.ndarray:
        """Return what each sentence counts when a model is fitted."""
        by_text = np.array([of_kind[text.kind] for text in self.texts])
        return np.where(self.learned, by_text[self.text], 0.0)

    def worst(self, scores: np.ndarray) -> np.ndarray:
        """Return for every text the score of its worst sentence."""
        top = np.full(len(self.texts), -np.inf)
        np.maximum.at(top, self.text, scores)
        return top

    def cue(self, apart: np.ndarray | None = None) -> LinearModel:
        """Fit the cue without the sentences that are set apart."""
        worth = self.worth(CUE_WORTH)
        if apart is not None:
            worth[apart] = 0.0
        return fit_linear(self.written.matrix, self.written.names, self.labels, worth)


def of_other_authors(all_: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """Return for every text the scores of cue and breach by models that were fitted without its author."""
    authors = sorted({author for author in all_.authors if not author.startswith("replies")})
    replies = sorted(set(all_.authors) - set(authors))
    cues, breaches = np.zeros(len(all_.text)), np.zeros(len(all_.text))
    worth = all_.worth(BREACH_WORTH)
    for number in range(PARTS):
        left_out = [*authors[number::PARTS], *replies[number::PARTS]]
        apart = np.isin(all_.authors, left_out)[all_.text]
        cue = all_.cue(apart)
        places = np.flatnonzero(apart)
        written = [all_.written.words[place] for place in places.tolist()]
        cues[places] = [highest_sum(cue, words) for words in written]
        counted = ~apart & (worth > 0)
        network = fit_network(all_.rows[counted], all_.labels[counted], worth[counted], Training())
        ends = np.array([cue.score(words) for words in written])
        breaches[places] = network.score(all_.rows[places]) + CUE_SHARE * ends
        say(f"  without {', '.join(left_out)}: {len(places)} sentences apart")
    return all_.worst(cues), all_.worst(breaches)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="cross-validate, write nothing")
    options = parser.parse_args(arguments)
    all_ = Sentences(list(read_labelled()))
    say(f"texts: {dict(Counter(all_.kinds.tolist()))}")
    cues, breaches = of_other_authors(all_)
    thresholds = chosen(all_.kinds, cues, breaches)
    tell(all_, cues, breaches, thresholds)
    if options.check:
        return 0
    worth = all_.worth(BREACH_WORTH)
    counted = worth > 0
    network = fit_network(all_.rows[counted], all_.labels[counted], worth[counted], Training())
    checks = np.array([text.check for text in all_.texts])[all_.text]
    is_breach = (all_.labels > 0).astype(float)
    linear = {"cue": stored_linear(all_.cue())}
    for check in CHECKS:
        model = fit_linear(all_.spoken.matrix, all_.spoken.names, checks == check, is_breach)
        linear[f"check:{check}"] = stored_linear(model, smallest=0.1)
    say(write_models(linear, network, all_.spoken.names, {**thresholds, "cue_share": CUE_SHARE}))
    return 0


def chosen(kinds: np.ndarray, cues: np.ndarray, breaches: np.ndarray) -> dict[str, float]:
    """Choose the thresholds: so many breaches cued, so few permitted and ordinary ones decided."""
    cue = float(np.quantile(cues[kinds == "breach"], 1 - CUE_RECALL))
    held = np.where(cues >= cue, breaches, -np.inf)
    breach = max(
        float(np.quantile(held[kinds == "permitted"], 1 - DECIDED_FALSE, method="higher")),
        float(np.quantile(held[kinds == "ordinary"], 1 - DECIDED_ORDINARY, method="higher")),
    )
    doubt = float(np.quantile(breaches[kinds == "breach"], 1 - DOUBTED_RECALL))
    return {"cue": round(cue, 3), "breach": round(breach, 3), "doubt": round(min(doubt, breach), 3)}


def tell(all_: Sentences, cues: np.ndarray, breaches: np.ndarray, thresholds: dict[str, float]) -> None:
    """Say how the models do on authors that they have not seen."""
    cued = cues >= thresholds["cue"]
    decided, doubted = cued & (breaches >= thresholds["breach"]), cued & (breaches >= thresholds["doubt"])
    for name, found in (("cued", cued), ("decided", decided), ("decided or doubted", doubted)):
        shares = {kind: found[all_.kinds == kind].mean() for kind in ("breach", "permitted", "ordinary")}
        say(f"{name}: " + ", ".join(f"{kind} {share:.3f}" for kind, share in shares.items()))
    for author in sorted({each for each in all_.authors if not each.startswith("replies")}):
        own = all_.authors == author
        breach, permitted = own & (all_.kinds == "breach"), own & (all_.kinds == "permitted")
        say(
            f"  {author}: {int(own.sum())} texts, cued {cued[breach].mean():.2f}, "
            f"decided {decided[breach].mean():.2f}, false {decided[permitted].mean():.2f}"
        )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
