"""Drafting: pictures -> finding probabilities -> decisions -> text, checked against the decisions.

The finding heads decide at the checkpoint's operating points what the report states; the decisions go into the prompt,
and the text is held to them: what it states beyond them is taken out, what it leaves out is written as a plain
sentence. So the text loses nothing that the heads know, and adds no finding that they do not support.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch

from mmfm.batch import Batch
from mmfm.data.collate import collate
from mmfm.models.checkpoint import Checkpoint
from mmfm.models.heads import HeadLogits
from mmfm.models.processor import Drafted, Processor, StudyPixels
from mmfm.report import Finding, Side, Status
from mmfm.text import describe, label_report, split_sentences

MAX_NEW_TOKENS = 256
DECODING = f"greedy, at most {MAX_NEW_TOKENS} tokens"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the model says of one study, before anything is withheld from a reader."""

    study_uid: str
    probabilities: dict[str, float]
    """P(present) by observation that was learned, ``normal`` included."""
    decisions: tuple[Finding, ...]
    """Present findings at the operating points, with their side."""
    views: tuple[str, ...]
    """View of each picture as it was used: as stated, else as read from the picture."""
    findings: str | None
    impression: str | None
    finished: bool
    num_tokens: int
    """Tokens that the language model wrote, the end token included."""
    prompt_sha256: str
    decoding: str


def draft(
    checkpoint: Checkpoint,
    studies: Sequence[tuple[str, StudyPixels, str | None]],
    *,
    streamer: Any = None,
) -> list[Draft]:
    """Returns a draft of each study (study_uid, pictures, indication), in one batch.

    Args:
        checkpoint: model, processor and operating points.
        studies: what ``Processor.pixels`` gave, with the indication.
        streamer: a transformers streamer that gets the tokens of a single study.
    """
    model, processor = checkpoint.model, checkpoint.processor
    device = next(model.parameters()).device
    pad = processor.tokenizer.pad_token_id
    batch = collate([processor.query(uid, pixels) for uid, pixels, _ in studies], pad_token_id=pad).to(device)
    with torch.inference_mode():
        encoded = model.encode(batch)
        decided = _decide(checkpoint, encoded.heads)
        prompts = [
            processor.prompt_ids(len(pixels.views_S), indication, decisions)
            for (_, pixels, indication), (_, decisions) in zip(studies, decided, strict=True)
        ]
        written = _generate(checkpoint, prompts, encoded.tokens_NVE, streamer)
    drafts = []
    used = iter(encoded.heads.views_N.tolist())
    for (uid, pixels, _), (probabilities, decisions), prompt, ids in zip(
        studies, decided, prompts, written, strict=True
    ):
        text = processor.parse(ids)
        findings, impression, changes = hold_to_decisions(text, decisions)
        drafts.append(
            Draft(
                study_uid=uid,
                probabilities=probabilities,
                decisions=decisions,
                views=tuple("lateral" if next(used) else "frontal" for _ in pixels.views_S),
                findings=findings,
                impression=impression,
                finished=text.finished,
                num_tokens=_num_written(ids, processor),
                prompt_sha256=_sha256(prompt),
                decoding=f"{DECODING}; {changes}",
            )
        )
    return drafts


def draft_text_only(checkpoint: Checkpoint, studies: Sequence[tuple[str, str | None]]) -> list[Draft]:
    """Returns what the language model writes of each study (study_uid, indication) without any picture, in one batch.

    The prompt holds no vision token and no decision, since the heads read pictures, and the text is left as it was
    written: what it states comes from the indication and from what the training reports most often say. It is a
    control, never a draft for a reader.
    """
    model, processor = checkpoint.model, checkpoint.processor
    prompts = [processor.prompt_ids(0, indication, None) for _, indication in studies]
    embedding = model.language.get_input_embeddings().weight
    with torch.inference_mode():
        written = _generate(checkpoint, prompts, embedding.new_zeros(0, 0, embedding.shape[1]), None)
    drafts = []
    for (uid, _), prompt, ids in zip(studies, prompts, written, strict=True):
        text = processor.parse(ids)
        drafts.append(
            Draft(
                study_uid=uid,
                probabilities={},
                decisions=(),
                views=(),
                findings=text.findings,
                impression=text.impression,
                finished=text.finished,
                num_tokens=_num_written(ids, processor),
                prompt_sha256=_sha256(prompt),
                decoding=f"{DECODING}; no picture, not held to any finding",
            )
        )
    return drafts


def _decide(checkpoint: Checkpoint, heads: HeadLogits) -> list[tuple[dict[str, float], tuple[Finding, ...]]]:
    observations = checkpoint.processor.config.observations
    points, learned = checkpoint.facts.operating_points, checkpoint.facts.learned
    out = []
    present_BO, sides_BO2 = heads.present_BO.sigmoid().tolist(), heads.sides_BO2.sigmoid().tolist()
    for present_O, sides_O2, frontal in zip(present_BO, sides_BO2, heads.frontal_B.tolist(), strict=True):
        probabilities = {o: p for o, p in zip(observations, present_O, strict=True) if learned is None or o in learned}
        decisions = tuple(
            Finding(
                observation=o, status=Status.PRESENT, probability=p, laterality=_side(o, sides) if frontal else None
            )
            for o, p, sides in zip(observations, present_O, sides_O2, strict=True)
            if o in points and p >= points[o]
        )
        out.append((probabilities, decisions))
    return out


SIDELESS = ("cardiomegaly", "edema", "emphysema", "enlarged_cardiomediastinum", "hernia", "support_devices")
"""Observations whose side reports seldom state, so that the side heads hardly learn it."""


def _side(observation: str, sides: Sequence[float]) -> Side | None:
    left, right = sides
    if observation in SIDELESS:
        return None
    if left >= 0.5 and right >= 0.5:
        return Side.BILATERAL
    return Side.LEFT if left >= right else Side.RIGHT


def _generate(
    checkpoint: Checkpoint, prompts: Sequence[list[int]], tokens_NVE: torch.Tensor, streamer: Any
) -> list[list[int]]:
    model, tokenizer = checkpoint.model, checkpoint.processor.tokenizer
    length = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids_BT = torch.tensor([[pad] * (length - len(p)) + p for p in prompts], device=tokens_NVE.device)
    mask_BT = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=tokens_NVE.device)
    generated = model.language.generate(
        inputs_embeds=model.embed(ids_BT, tokens_NVE),
        attention_mask=mask_BT,
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        streamer=streamer,
    )
    return generated.tolist()


def _num_written(ids: Sequence[int], processor: Processor) -> int:
    """Returns the tokens up to the end token: behind it stands padding, as long as the longest text of the batch."""
    end = processor.tokenizer.eos_token_id
    return ids.index(end) + 1 if end in ids else len(ids)


def _sha256(prompt: list[int]) -> str:
    return hashlib.sha256(str(prompt).encode()).hexdigest()


def hold_to_decisions(text: Drafted, decisions: Sequence[Finding]) -> tuple[str | None, str | None, str]:
    """Returns findings and impression that state the decisions and no other present finding, and what was changed.

    A sentence that states a finding beyond the decisions, names another side, or denies one of them, is taken out, and
    of an impression with decisions every sentence that states nothing. A decision that a section does not state, with
    its side, is written in front of it as a template sentence. Text of which nothing is left becomes the normal
    template.
    """
    allowed = {f.observation: f.laterality for f in decisions}

    def fits(sentence: str) -> bool:
        sides: list[Side | None] = []
        for found in label_report(sentence):
            if found.status is Status.ABSENT:
                if found.observation in allowed:
                    return False
            elif found.observation not in allowed:
                return False
            elif None not in (found.laterality, allowed[found.observation]):
                if found.laterality is not allowed[found.observation]:
                    return False
            if found.status is not Status.ABSENT and found.observation not in SIDELESS:
                sides.append(allowed[found.observation])
        # The labeller gives a finding one side; a sentence may name another one besides, or one that nobody decided.
        return not sides or _named_sides(sentence) <= {one for side in sides for one in _SINGLE[side]}

    removed = 0
    kept: list[list[str]] = []
    for section in (text.findings, text.impression):
        sentences = split_sentences(section or "")
        good = [sentence for sentence in sentences if fits(sentence)]
        if decisions and section is text.impression:
            # An impression that also calls the study normal would deny what it states.
            good = [sentence for sentence in good if any(f.status is not Status.ABSENT for f in label_report(sentence))]
        removed += len(sentences) - len(good)
        kept.append(good)
    added = 0
    for sentences in kept:
        stated = [f for f in label_report(" ".join(sentences)) if f.status is Status.PRESENT]
        missing = [
            d
            for d in decisions
            if not any(f.observation == d.observation and d.laterality in (None, f.laterality) for f in stated)
        ]
        sentences[:0] = split_sentences(describe(missing)[0]) if missing else []
        added += len(missing)
    if not any(kept) and (text.findings or text.impression):
        kept = [split_sentences(section) for section in describe(())]
    findings, impression = (" ".join(sentences) or None for sentences in kept)
    return findings, impression, f"held to the finding heads: {removed} sentence(s) out, {added} in"


_SINGLE = {
    Side.LEFT: (Side.LEFT,),
    Side.RIGHT: (Side.RIGHT,),
    Side.BILATERAL: (Side.LEFT, Side.RIGHT),
    None: (),
}


def _named_sides(sentence: str) -> set[Side]:
    words = set(re.findall(r"\b(left|right|bilateral|bilaterally|both)\b", sentence.lower()))
    both = words & {"bilateral", "bilaterally", "both"}
    return {side for side, word in ((Side.LEFT, "left"), (Side.RIGHT, "right")) if both or word in words}


def stream_draft(checkpoint: Checkpoint, study: tuple[str, StudyPixels, str | None]) -> Iterator[str | Draft]:
    """Yields the text of one study as it grows, then its Draft."""
    from transformers import TextIteratorStreamer

    streamer = TextIteratorStreamer(checkpoint.processor.tokenizer, skip_special_tokens=True)
    done: list[Draft | BaseException] = []

    def work() -> None:
        try:
            done.extend(draft(checkpoint, [study], streamer=streamer))
        except BaseException as error:
            done.append(error)
            streamer.end()

    thread = Thread(target=work, daemon=True)
    thread.start()
    text = ""
    for piece in streamer:
        text += piece
        yield text
    thread.join()
    if isinstance(done[0], BaseException):
        raise done[0]
    yield done[0]


def encode_features(checkpoint: Checkpoint, pixels: StudyPixels) -> torch.Tensor:
    """Returns the mean patch feature of a study, float32 (E,)."""
    processor = checkpoint.processor
    batch: Batch = collate([processor.query("study", pixels)], pad_token_id=processor.tokenizer.pad_token_id)
    with torch.inference_mode():
        return checkpoint.model.encode(batch.to(next(checkpoint.model.parameters()).device)).features_BE[0].cpu()
