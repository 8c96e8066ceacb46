"""Drafting: pictures -> finding probabilities -> decisions -> text, checked against the decisions.

The finding heads decide at the checkpoint's operating points what the report states; the decisions go into the prompt,
and the text is held to them: what it states beyond them is taken out, what it leaves out is written as a plain
sentence. So the text loses nothing that the heads know, and adds no finding that they do not support.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

import torch

from mmfm.batch import Batch
from mmfm.data.collate import collate
from mmfm.models.checkpoint import Checkpoint
from mmfm.models.decisions import decide
from mmfm.models.holding import hold_to_decisions
from mmfm.models.processor import Processor, StudyPixels
from mmfm.report import Finding

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
        encoded = model.encode(batch, seek_lesions=True)
        read = [pixels for _, pixels, _ in studies]
        decided = decide(checkpoint, read, encoded)
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
