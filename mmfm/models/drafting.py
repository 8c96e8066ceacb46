"""Drafting: pictures -> finding probabilities -> decisions -> text, checked against the decisions.

The finding heads decide at the checkpoint's operating points what the report states; the decisions go into the prompt,
and the text is held to them: what it states beyond them is taken out, what it leaves out is written as a plain
sentence. So the text loses nothing that the heads know, and adds no finding that they do not support.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any

import torch

from mmfm.batch import Batch
from mmfm.data.collate import collate
from mmfm.models.checkpoint import Checkpoint
from mmfm.models.lesions import find_lesions
from mmfm.models.processor import MOST_LESIONS_NAMED, Drafted, Processor, StudyPixels, kind_of_codes
from mmfm.models.vlm import Encoded
from mmfm.report import Finding, Lesion, Measurement, Side, Status
from mmfm.text import CHEST_RADIOGRAPH, REGIONS, describe, label_report, mentions, observations, split_sentences

MAX_NEW_TOKENS = 256
DECODING = f"greedy, at most {MAX_NEW_TOKENS} tokens"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What the model says of one study, before anything is withheld from a reader."""

    study_uid: str
    probabilities: dict[str, float]
    """P(present) by observation that was learned, ``normal`` included."""
    decisions: tuple[Finding, ...]
    """Present findings at the operating points, with their side; of a volume with each lesion."""
    region: str | None
    """Whose vocabulary the text is read with; ``None`` where there is none."""
    kind: str | None
    """What was examined, such as "CT of the chest": as the volume's recipe says, or as read from the pictures."""
    views: tuple[str, ...]
    """View of each picture as it was used: as stated, else as read from the picture; none of a volume."""
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
        read = [pixels for _, pixels, _ in studies]
        decided = _decide(checkpoint, read, encoded)
        prompts = [
            processor.prompt_ids(processor.num_vision_tokens(pixels), indication, d.findings, kind=d.kind)
            for (_, pixels, indication), d in zip(studies, decided, strict=True)
        ]
        written = _generate(checkpoint, prompts, encoded.tokens_VE, streamer)
    drafts = []
    used = iter(encoded.heads.views_N.tolist())
    for (uid, pixels, _), decisions, prompt, ids in zip(studies, decided, prompts, written, strict=True):
        text = processor.parse(ids)
        findings, impression, changes = hold_to_decisions(text, decisions.findings, region=decisions.region)
        drafts.append(
            Draft(
                study_uid=uid,
                probabilities=decisions.probabilities,
                decisions=decisions.findings,
                region=decisions.region,
                kind=decisions.kind,
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
        written = _generate(checkpoint, prompts, embedding.new_zeros(0, embedding.shape[1]), None)
    drafts = []
    for (uid, _), prompt, ids in zip(studies, prompts, written, strict=True):
        text = processor.parse(ids)
        drafts.append(
            Draft(
                study_uid=uid,
                probabilities={},
                decisions=(),
                region=None,
                kind=None,
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


@dataclass(frozen=True, kw_only=True)
class _Decisions:
    probabilities: dict[str, float]
    findings: tuple[Finding, ...]
    region: str | None
    kind: str | None


def _decide(checkpoint: Checkpoint, read: Sequence[StudyPixels], encoded: Encoded) -> list[_Decisions]:
    config, facts, heads = checkpoint.processor.config, checkpoint.facts, encoded.heads
    learned = facts.learned
    present_BO, sides_BO2 = heads.present_BO.sigmoid().tolist(), heads.sides_BO2.sigmoid().tolist()
    maps = iter(encoded.volumes)
    out = []
    for row, pixels in enumerate(read):
        probabilities = {
            o: p for o, p in zip(config.observations, present_BO[row], strict=True) if learned is None or o in learned
        }
        kind, region = pixels.kind, pixels.region
        if not pixels.slabs:
            codes = dict(zip(config.codes, heads.codes_BK[row].tolist(), strict=True))
            kind, region = kind_of_codes(codes) if config.recipes else (None, CHEST_RADIOGRAPH)
        within = observations(region) if region in REGIONS else ()
        probabilities = {o: p for o, p in probabilities.items() if o in within or o == "normal"}
        lesions = {}
        if pixels.slabs:
            own = [next(maps) for _ in pixels.slabs]
            wanted = {o: p for o, p in facts.volumes.lesion_points.items() if o in within}
            affines = [slab.affine for slab in pixels.slabs]
            lesions = find_lesions(checkpoint.model, checkpoint.processor, affines, own, wanted)
        points = facts.volumes.operating_points if pixels.slabs else facts.operating_points
        findings = []
        for column, name in enumerate(config.observations):
            p = probabilities.get(name)
            if pixels.slabs and name in facts.volumes.lesion_points:
                if name in lesions:
                    findings.append(_counted(name, lesions[name], p))
            elif p is not None and name in points and p >= points[name]:
                grades = heads.severity_BOG[row, column]
                findings.append(
                    Finding(
                        observation=name,
                        status=Status.PRESENT,
                        probability=p,
                        laterality=_side(name, sides_BO2[row][column]) if heads.sided_B[row] else None,
                        severity=_severity(name, int(grades.argmax())) if pixels.slabs else None,
                    )
                )
        out.append(_Decisions(probabilities=probabilities, findings=tuple(findings), region=region, kind=kind))
    return out


def _counted(name: str, lesions: tuple[Lesion, ...], probability: float | None) -> Finding:
    """Returns the finding of a study's lesions of one observation; what differs between them stands with each."""
    sides = {lesion.laterality for lesion in lesions}
    places = {(lesion.laterality, lesion.location) for lesion in lesions}
    return Finding(
        observation=name,
        status=Status.PRESENT,
        laterality=None if None in sides else Side.BILATERAL if len(sides) > 1 else next(iter(sides)),
        location=lesions[0].location if len(places) == 1 else None,
        count=len(lesions),
        measurement=Measurement(value=float(round(lesions[0].diameter_mm)), unit="mm"),
        probability=probability,
        lesions=lesions,
    )


SIDELESS = (
    "cardiomegaly",
    "edema",
    "emphysema",
    "enlarged_cardiomediastinum",
    "free_fluid",
    "hernia",
    "hydrocephalus",
    "support_devices",
)
"""Observations whose side reports seldom state, so that the side heads hardly learn it."""

_SIZED = ("pleural_effusion", "pneumothorax", "free_fluid")
_GRADED = ("cardiomegaly", "emphysema", "hydrocephalus")


def _severity(observation: str, grade: int) -> str | None:
    """Returns the word for a grade: fluid and air are small to large, what is graded otherwise is mild to severe."""
    if observation in _SIZED:
        return ("small", "moderate", "large")[grade]
    return ("mild", "moderate", "severe")[grade] if observation in _GRADED else None


def _side(observation: str, sides: Sequence[float]) -> Side | None:
    left, right = sides
    if observation in SIDELESS:
        return None
    if left >= 0.5 and right >= 0.5:
        return Side.BILATERAL
    return Side.LEFT if left >= right else Side.RIGHT


def _generate(
    checkpoint: Checkpoint, prompts: Sequence[list[int]], tokens_VE: torch.Tensor, streamer: Any
) -> list[list[int]]:
    model, tokenizer = checkpoint.model, checkpoint.processor.tokenizer
    length = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    ids_BT = torch.tensor([[pad] * (length - len(p)) + p for p in prompts], device=tokens_VE.device)
    mask_BT = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=tokens_VE.device)
    generated = model.language.generate(
        inputs_embeds=model.embed(ids_BT, tokens_VE),
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


def hold_to_decisions(
    text: Drafted, decisions: Sequence[Finding], *, region: str | None = CHEST_RADIOGRAPH
) -> tuple[str | None, str | None, str]:
    """Returns findings and impression that state the decisions and no other present finding, and what was changed.

    A sentence that states a finding beyond the decisions, names another side, place, size or number, or denies one of
    them, is taken out, and of an impression with decisions every sentence that states nothing. A decision that a
    section does not state, with its side and each of its lesions, is written in front of it as a template sentence.
    Text of which nothing is left becomes the normal template. Without a vocabulary nothing can be held: the text stays
    as it was written, and is not for a reader.
    """
    if region not in REGIONS:
        return text.findings, text.impression, "not held to the finding heads: no vocabulary for this part of the body"
    removed = 0
    kept: list[list[str]] = []
    for section in (text.findings, text.impression):
        sentences = split_sentences(section or "")
        good = [sentence for sentence in sentences if _fits(sentence, decisions, region)]
        if decisions and section is text.impression:
            # An impression that also calls the study normal would deny what it states.
            good = [s for s in good if any(f.status is not Status.ABSENT for f in label_report(s, region=region))]
        removed += len(sentences) - len(good)
        kept.append(good)
    added = 0
    for sentences in kept:
        stated = _statements(" ".join(sentences), decisions, region)
        missing = [part for d in decisions for part in _parts(d) if not any(_states(m, part, d) for m in stated)]
        sentences[:0] = split_sentences(describe(missing, region=region)[0]) if missing else []
        added += len(missing)
    if not any(kept) and (text.findings or text.impression):
        kept = [split_sentences(section) for section in describe((), region=region)]
    findings, impression = (" ".join(sentences) or None for sentences in kept)
    return findings, impression, f"held to the finding heads: {removed} sentence(s) out, {added} in"


def _parts(decision: Finding) -> list[Finding]:
    """Returns what sentences must state of a decision: each of a few lesions, else the finding as a whole."""
    if not decision.lesions:
        return [decision]
    single = [
        replace(
            decision,
            laterality=lesion.laterality,
            location=lesion.location,
            count=None,
            measurement=Measurement(value=float(round(lesion.diameter_mm)), unit="mm"),
            lesions=(),
        )
        for lesion in decision.lesions[:MOST_LESIONS_NAMED]
    ]
    return single if len(decision.lesions) == 1 else [replace(decision, lesions=()), *single]


def _statements(text: str, decisions: Sequence[Finding], region: str) -> list[Finding]:
    """Returns what a text states: every single mention of what is counted, the other findings merged over the text."""
    counted = {decision.observation for decision in decisions if decision.lesions}
    merged = [finding for finding in label_report(text, region=region) if finding.observation not in counted]
    return [*merged, *(m for m in mentions(text, region=region) if m.observation in counted)] if counted else merged


def _states(mention: Finding, part: Finding, decision: Finding) -> bool:
    """Whether a mention in a text states a part of a decision."""
    if mention.observation != part.observation or mention.status is not Status.PRESENT:
        return False
    if not decision.lesions:
        return part.laterality in (None, mention.laterality)
    if part.count is not None:
        return mention.count == part.count
    return (mention.laterality, mention.location, mention.measurement) == (
        part.laterality,
        part.location,
        part.measurement,
    )


def _fits(sentence: str, decisions: Sequence[Finding], region: str) -> bool:
    """Whether a sentence states nothing that the decisions do not."""
    by_name = {decision.observation: decision for decision in decisions}
    sides: list[Side | None] = []
    for found in _statements(sentence, decisions, region):
        decision = by_name.get(found.observation)
        if found.status is Status.ABSENT:
            if decision is not None:
                return False
            continue
        if decision is None:
            return False
        if decision.lesions and not _fits_lesions(found, decision):
            return False
        if not decision.lesions and not _fits_whole(found, decision, region):
            return False
        if found.observation not in SIDELESS:
            sides += [decision.laterality, *(lesion.laterality for lesion in decision.lesions)]
            # "The right hepatic lobe" names a side, and is a place without one.
            sides += _named_sides(" ".join(lesion.location or "" for lesion in decision.lesions))
    # The labeller gives a finding one side; a sentence may name another one besides, or one that nobody decided.
    return not sides or _named_sides(sentence) <= {one for side in sides for one in _SINGLE[side]}


def _fits_whole(found: Finding, decision: Finding, region: str) -> bool:
    """Whether a mention names no other side, and of a volume no other severity, than was decided."""
    if None not in (found.laterality, decision.laterality) and found.laterality is not decision.laterality:
        return False
    return region == CHEST_RADIOGRAPH or found.severity in (None, decision.severity)


def _fits_lesions(found: Finding, decision: Finding) -> bool:
    """Whether lesions are where a mention of something counted places them, with its size and as many as it names."""
    named = _SINGLE[found.laterality]
    shown = [
        lesion
        for lesion in decision.lesions
        if found.location in (None, lesion.location) and (not named or lesion.laterality in named)
    ]
    return (
        set(named) <= {lesion.laterality for lesion in shown}
        and found.count in (None, 1, len(shown))
        and (found.measurement is None or round(found.measurement.value) in {round(x.diameter_mm) for x in shown})
        and bool(shown)
    )


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
