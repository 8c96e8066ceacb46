"""Makes `wording_golden.json`: 200 made-up pairs of reports, scored by the packages that `wording.py` has to equal.

In an environment of its own, since two of the packages are no dependencies (pycocoevalcap carries Java archives under
the GPL; nothing here starts Java):

    pip install --no-deps pycocoevalcap==1.2
    pip install rouge-score==0.1.2 nltk==3.10.4 numpy
    python tests/evaluation/wording_reference.py
"""

import json
import random
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from nltk.translate.meteor_score import meteor_score
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer

GOLDEN = Path(__file__).parent / "wording_golden.json"

WRITTEN = (  # draft, reference: what no random draw can be relied on to make
    ("the heart is normal in size . the lungs are clear", "the heart is normal in size . the lungs are clear"),
    ("clear are lungs the . size in normal is heart the", "the heart is normal in size . the lungs are clear"),
    ("no acute disease", "the cardiomediastinal silhouette is within normal limits . no focal consolidation"),
    ("the the the the lungs lungs clear clear clear", "the lungs are clear"),
    ("the lungs are clear", "the the the the lungs lungs clear clear clear"),
    ("", "there is a right apical pneumothorax"),
    ("", "clear"),
    ("clear", "clear"),
    ("clear", "normal"),
    ("normal", "no change"),
    ("no change", "normal"),
    ("no pleural effusion", "no pleural effusion"),
    ("lungs clear", "tube tip above the carina . lungs clear . heart size normal . no effusion . bones intact"),
    ("degenerative changes of the thoracic spine", "stable cardiomegaly"),
    (
        "a 1.5 cm nodule in the right upper lobe",
        "a 1.5 cm nodule projects over the right upper lobe . 2 calcified nodes",
    ),
    ("a 15 mm nodule at t12", "a 1.5 cm nodule at t 12 . 4 mm calcification"),
    ("well-expanded lungs . a follow-up x-ray is advised", "well expanded lungs . follow up with an x ray"),
    ("well expanded left-sided effusion", "well-expanded lungs . left sided effusions"),
    ("effusions opacities calcifications enlarged", "effusion opacity calcified enlargement"),
    ("effusion effusions effusion", "effusions effusion effusions effused"),
    ("dying skies news", "die sky innings outing news dies lying"),  # words that nltk's stemmer treats by a list
    ("xxxx . comparison xxxx", "chest x-xxxx . xxxx unchanged since xxxx"),
    ("herz normal groß . é", "herz normal groß . kein erguß"),
    ("é", "é"),
    ("groß", "gross"),
    (" . ".join(["no pleural effusion"] * 30), "no pleural effusion . no pneumothorax"),
    ("no pleural effusion . no pneumothorax", " . ".join(["no pleural effusion"] * 12)),
)

NORMAL = (
    "the heart is normal in size",
    "heart size and mediastinal contours are within normal limits",
    "the lungs are clear",
    "lungs are well-expanded and clear bilaterally",
    "no focal consolidation pneumothorax or pleural effusion",
    "no pleural effusion or pneumothorax is seen",
    "the visualized bony structures are intact",
    "osseous structures are unremarkable for age",
    "the trachea is midline",
    "pulmonary vasculature is unremarkable",
    "no free air beneath the diaphragm",
)
FOUND = (
    "there is a {size} {side} pleural effusion with adjacent atelectasis",
    "{size} {side} apical pneumothorax measuring {number} cm",
    "patchy opacities in the {side} {place} suspicious for pneumonia",
    "a {number} cm nodule projects over the {side} {place}",
    "{size} enlargement of the cardiac silhouette",
    "linear scarring or subsegmental atelectasis in the {side} {place}",
    "calcified granuloma in the {side} {place} measures {number} mm",
    "endotracheal tube tip is {number} cm above the carina",
    "{side} picc line terminates in the mid svc",
    "healed fractures of {side} ribs {count} and {count}",
    "{size} compression deformity of t{count}",
    "degenerative changes of the thoracic spine at t{count}-t{count}",
    "interstitial markings are increased bilaterally since the study of {count} months ago",
    "xxxx sternotomy xxxx are noted",
)
SLOTS = {
    "size": ("small", "mild", "moderate", "large"),
    "side": ("left", "right"),
    "place": ("upper lobe", "lower lobe", "mid-lung", "costophrenic angle", "perihilar region"),
    "number": ("1.5", "2", "3.2", "0.8", "12"),
    "count": ("4", "7", "8", "11", "12"),
}
OTHER_WORDS = {
    "opacities": "opacity",
    "enlargement": "enlarged",
    "well-expanded": "well expanded",
    "unremarkable": "unremarkably normal",
    "calcified": "calcification",
    "fractures": "fracture",
    "measuring": "measures",
    "there is": "there are",
    "mid-lung": "midlung",
    "is seen": "was not seen",
    "left": "right",
}


def report(rng, most):
    sentences = [rng.choice(rng.choice((NORMAL, FOUND))) for _ in range(rng.randint(1, most))]
    return " . ".join(s.format_map({slot: rng.choice(words) for slot, words in SLOTS.items()}) for s in sentences)


def draft_of(rng, reference):
    """Returns a draft that is right, reworded, cut, repeated, shuffled, of another study, one word, or empty."""
    sentences, words = reference.split(" . "), reference.split()
    kinds = (
        "same",
        "reworded",
        "reworded",
        "holes",
        "holes",
        "order",
        "repeats",
        "cut",
        "other",
        "other",
        "word",
        "empty",
    )
    kind = rng.choice(kinds)
    if kind == "reworded":
        for old, new in OTHER_WORDS.items():
            reference = reference.replace(old, new) if rng.random() < 0.7 else reference
    elif kind == "holes":
        sentences = [" ".join(word for word in s.split() if rng.random() < 0.8) for s in sentences]
        reference = " . ".join(s for s in sentences if s)
    elif kind == "order":
        reference = " . ".join(rng.sample(sentences, len(sentences)))
    elif kind == "repeats":
        reference = " . ".join(rng.choice(sentences) for _ in range(len(sentences) + 4))
    elif kind == "cut":
        reference = " . ".join(sentences[: len(sentences) // 2 + 1])
    elif kind == "other":
        reference = report(rng, 9)
    elif kind == "word":
        reference = rng.choice([word for word in words if word != "."])
    elif kind == "empty":
        reference = ""
    return reference


def made_pairs():
    rng = random.Random(5)
    references = [report(rng, rng.choice((1, 4, 9, 16))) for _ in range(200 - len(WRITTEN))]
    return [*WRITTEN, *((draft_of(rng, reference), reference) for reference in references)]


def scored(pairs):
    """Returns the scores of the corpus, and those of each of its pairs."""
    drafts = {i: [draft] for i, (draft, _) in enumerate(pairs)}
    references = {i: [reference] for i, (_, reference) in enumerate(pairs)}
    corpus, each = {}, {}
    bleu, bleu_each = Bleu(4).compute_score(references, drafts, verbose=0)
    for n in range(4):
        corpus[f"bleu_{n + 1}"], each[f"bleu_{n + 1}"] = bleu[n], bleu_each[n]
    for name, scorer in (("cider_d", Cider()), ("rouge_l", Rouge())):
        corpus[name], each[name] = scorer.compute_score(references, drafts)
    rouge, no_wordnet = RougeScorer(["rougeL"], use_stemmer=False), SimpleNamespace(synsets=lambda word: [])
    each["rouge_l_rouge_score"] = [rouge.score(reference, draft)["rougeL"].fmeasure for draft, reference in pairs]
    each["meteor_exact_stem"] = [
        meteor_score([reference.split()], draft.split(), wordnet=no_wordnet) for draft, reference in pairs
    ]
    for name in ("rouge_l_rouge_score", "meteor_exact_stem"):
        corpus[name] = sum(each[name]) / len(pairs)
    round_12 = {name: [round(float(x), 12) for x in values] for name, values in each.items()}
    return {name: round(float(x), 12) for name, x in corpus.items()}, round_12


def main():
    pairs = made_pairs()
    everything = list(range(len(pairs)))
    studies_of = {
        "all": everything,
        "one": [14],
        "written": everything[: len(WRITTEN)],
        "longer_drafts": [i for i in everything if len(pairs[i][0].split()) > len(pairs[i][1].split())],
        "nothing_drafted": [i for i in everything if not pairs[i][0]],
        "drawn": random.Random(6).choices(everything, k=300),
    }
    corpora = [
        {"name": name, "studies": studies, "scores": scored([pairs[i] for i in studies])[0]}
        for name, studies in studies_of.items()
    ]
    each = scored(pairs)[1]
    rows = [
        {"draft": draft, "reference": reference, "scores": {name: each[name][i] for name in each}}
        for i, (draft, reference) in enumerate(pairs)
    ]
    packages = {name: version(name) for name in ("pycocoevalcap", "rouge-score", "nltk", "numpy")}
    lines = {name: ",\n".join(map(json.dumps, values)) for name, values in (("pairs", rows), ("corpora", corpora))}
    body = "".join(f',\n"{name}": [\n{text}\n]' for name, text in lines.items())
    GOLDEN.write_text(f'{{\n"made_by": {json.dumps(packages)}{body}\n}}\n')


if __name__ == "__main__":
    main()
