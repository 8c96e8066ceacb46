"""The command line: ``mmfm report``, ``mmfm train``, ``mmfm evaluate`` and the others that ``mmfm --help`` lists.

Each command is one function call with the names of the Python API. Heavy imports stand inside the functions, so that
``mmfm --help`` answers at once. An error that mmfm raises on purpose ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import gc
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmfm.errors import ConfigError, MmfmError, ReadError, ScopeError

if TYPE_CHECKING:
    from mmfm.study import Study

DEFAULT_CHECKPOINT = "mmfm-cxr-small"

# rich would double the time of --help, and its tracebacks print local variables: file names, perhaps patients.
app = typer.Typer(
    name="mmfm",
    help="Drafts radiology reports from DICOM studies. Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    MD = "md"


class VolumeModality(StrEnum):
    """What a NIfTI file may be of."""

    CT = "CT"
    MR = "MR"


class VolumeRegion(StrEnum):
    """What a CT or MR may be read as."""

    CHEST_CT = "chest_ct"
    ABDOMEN = "abdomen"
    HEAD = "head"


class Profile(StrEnum):
    """The profiles of PS3.15 Annex E that are built."""

    BASIC = "basic"


StudyPath = Annotated[Path, typer.Argument(metavar="PATH", help="A folder, zip or file: DICOM, NIfTI, PNG or JPEG.")]
CheckpointName = Annotated[str, typer.Option("--checkpoint", help="Shipped name, folder, local-dir:PATH or hf-hub:ID.")]
ManifestPath = Annotated[Path, typer.Option("--manifest", help="A manifest.jsonl.")]
Split = Annotated[str, typer.Option("--split", help="Which split of the manifest.")]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keeps the collector out of imports and of opening weights, which make many objects and no garbage.

    That is half a second of a cold start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays until the end: no collection has to look at it, not even the last one
        gc.enable()


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, zip or file of images, or a manifest.jsonl.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    headers_only: Annotated[bool, typer.Option("--headers-only", help="Decode no pixels.")] = False,
) -> None:
    """Say what was read, what was refused and why, and what preprocessing does to it."""
    import json

    if path.suffix == ".jsonl":
        from mmfm.data.manifest import check_manifest

        summary = check_manifest(path)
        print(json.dumps(summary.to_json()) if as_json else summary.to_text())
        raise typer.Exit(0 if summary.ok else 2)
    from mmfm.data import inspection

    found = inspection.inspect(path, headers_only=headers_only)
    print(json.dumps(found) if as_json else inspection.render(found))
    if not found["studies"]:
        raise ReadError(
            path.name,
            expected="at least one image",
            found="none that can be read",
            fix="the list says why for each file",
        )


@app.command()
def report(
    path: StudyPath,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Shipped name, folder, local-dir:PATH or hf-hub:ID; without, the shipped one that fits."),
    ] = None,
    indication: Annotated[str | None, typer.Option(help="Why the study was made.")] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="UID|#N", help="CT, MR: read only this series, as `mmfm inspect` lists it; repeatable."),
    ] = None,
    modality: Annotated[VolumeModality | None, typer.Option(help="What NIfTI files are of; they do not say.")] = None,
    region: Annotated[
        VolumeRegion | None, typer.Option(help="As what a CT or MR is read that does not say, or that shows several.")
    ] = None,
    prior: Annotated[
        Path | None, typer.Option(metavar="PATH", help="An earlier study of the same patient, to compare with.")
    ] = None,
    format: Annotated[Format, typer.Option(help="JSON is one object a line and study.")] = Format.TEXT,
    device: Device = "auto",
) -> None:
    """Draft the report of each study under PATH: radiographs of the chest, CT, MR."""
    import json

    with _no_garbage_collection():
        from mmfm.inference import AutoReporter, Reporter
        from mmfm.io import read, with_modality
        from mmfm.ui.render import report_markdown, report_text
    reading = read(path)
    studies = reading.require_studies(str(path))
    before = None if prior is None else _prior_study(prior, len(studies))
    if modality is not None:
        studies = tuple(with_modality(study, modality) for study in studies)
        if before is not None and any(one.source_format == "NIFTI" for one in before.series):
            before = with_modality(before, modality)
    if series and len(studies) > 1:
        raise ConfigError("--series", expected="one study", found=f"{len(studies)}", fix="give the path of one of them")
    if reading.refusals:
        print(reading.refusals, file=sys.stderr)
    with _no_garbage_collection():
        reporter: Reporter | AutoReporter = (
            AutoReporter(device=device) if checkpoint is None else Reporter.from_pretrained(checkpoint, device=device)
        )
    refused = 0
    for place, study in enumerate(studies, start=1):
        try:
            drafted = reporter.report(
                study, indication=indication, region=region, only=tuple(series or ()), prior=before
            )
        except (ScopeError, ReadError) as error:
            if len(studies) == 1:
                raise
            print(f"study {place} of {len(studies)}: {error}", file=sys.stderr)
            refused += 1
            continue
        match format:
            case Format.JSON:
                print(json.dumps(drafted.to_json()), flush=True)
            case Format.MD:
                print(report_markdown(drafted), end="\n\n", flush=True)
            case Format.TEXT:
                print(report_text(drafted), end="\n\n", flush=True)
    if refused:
        raise typer.Exit(2)


@app.command()
def predict(
    manifest: ManifestPath,
    split: Split,
    out: Annotated[Path, typer.Option(help="The predictions.jsonl to write.")],
    checkpoint: CheckpointName = DEFAULT_CHECKPOINT,
    batch_size: Annotated[int, typer.Option(min=1, help="Studies at a time.")] = 16,
    device: Device = "auto",
) -> None:
    """Draft every study of a split, for scoring: the text as decoding gave it, nothing withheld."""
    from mmfm.measure import predict as run

    drafted = run(checkpoint=checkpoint, manifest=manifest, split=split, out=out, batch_size=batch_size, device=device)
    print(f"{len(drafted)} studies drafted: {out}")


@app.command()
def train(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An experiment file, or the folder of a run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[dotted.path=value ...]", help="Fields to change.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run of the folder FILE.")] = False,
) -> None:
    """Train what an experiment file says."""
    from mmfm.experiment import train as run

    run(file, overrides or [], dry_run=dry_run, resume=resume)


@app.command()
def evaluate(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option(help="Folder for the card, the page and the drafts.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Drafts of any system, one JSON object a line; without, a checkpoint drafts.")
    ] = None,
    references: Annotated[Path | None, typer.Option(help="Reports as written, one JSON object a line.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="A manifest.jsonl with the studies scored.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split of the manifest.")] = None,
    train_manifest: Annotated[
        Path | None, typer.Option(help="Whose train split controls are made from, and leaks are looked for in.")
    ] = None,
    train_references: Annotated[
        Path | None, typer.Option(help="The same as a file of references, where there is no manifest.")
    ] = None,
    checkpoint: CheckpointName = DEFAULT_CHECKPOINT,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Drafts of a control, such as shuffled_images; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the system, where the drafts are a file.")] = None,
    subgroups: Annotated[
        str, typer.Option(metavar="NAMES", help="By what studies are told apart, with commas.")
    ] = "sex,age,view,scanner,source",
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="Kinds of scores, with commas.")
    ] = "findings,errors,probabilities,wording,external",
    sections: Annotated[
        str, typer.Option(metavar="NAMES", help="What wording metrics compare: findings, impression or both.")
    ] = "findings",
    thresholds: Annotated[
        Path | None, typer.Option(help="JSON of label to P(present), chosen on other studies.")
    ] = None,
    robustness: Annotated[
        int, typer.Option(min=0, help="Studies of pictures to draft again, altered, 13 times each.")
    ] = 0,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="DIR_A DIR_B", help="Compare two such folders; scores nothing.")
    ] = None,
    leaderboard: Annotated[Path | None, typer.Option(help="A page that gets a row and all tables.")] = None,
    summary: Annotated[Path | None, typer.Option(help="A page that gets the headline scores, between markers.")] = None,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write them into the checkpoint's own card too.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of what is drawn at random.")] = 0,
    device: Device = "auto",
) -> None:
    """Score drafts beside controls made in the same run: of a checkpoint, or of any system from a file.

    OUT gets scorecard.json, report.html, predictions.jsonl and what it takes to score again; with --compare it is one
    file.
    """
    _refuse_ignored(context)
    if compare is not None:
        import numpy as np

        from mmfm.evaluation.comparison import compare as compare_folders
        from mmfm.evaluation.comparison import write_comparison

        if out is not None and (out.is_dir() or not out.parent.is_dir()):
            raise ConfigError(
                "--out",
                expected="with --compare a file such as comparison.json, in a folder that is there",
                found="a folder" if out.is_dir() else "no such folder",
                fix="name another one",
            )
        comparison = compare_folders(*compare, generator=np.random.default_rng(seed))
        print(comparison.to_text())
        if out is not None:
            write_comparison(comparison, out)
        return
    from mmfm.evaluation import update_leaderboard, update_summary
    from mmfm.evaluation.files import chosen, evaluate_files, named_files, read_sources
    from mmfm.evaluation.leaderboard import check_summary
    from mmfm.evaluation.per_study import FAMILIES
    from mmfm.evaluation.references import GROUPINGS
    from mmfm.evaluation.results import check_folder

    if out is None:
        raise _needed("--out", "a folder for the results")
    options: dict[str, Any] = {
        "families": chosen("--metrics", metrics, FAMILIES),
        "subgroups": chosen("--subgroups", subgroups, GROUPINGS),
        "wording_sections": chosen("--sections", sections, ("findings", "impression")),
        "seed": seed,
    }
    if predictions is not None:
        sources = read_sources(
            references=references,
            manifest=manifest,
            split=split,
            train_manifest=train_manifest,
            train_references=train_references,
        )
        features = None
        if manifest is not None and train_manifest is not None and split is not None:
            from mmfm.measure import neighbour_features

            features = partial(neighbour_features, manifest, split, train_manifest, prepared_as=checkpoint)
        if summary is not None:
            check_summary(summary)
        card = evaluate_files(
            predictions=predictions,
            sources=sources,
            controls=named_files("--control", control or []),
            name=name,
            thresholds=thresholds,
            out=out,
            features=features,
            **options,
        )
        if leaderboard is not None:
            update_leaderboard(leaderboard, card)
        if summary is not None:
            update_summary(summary, card)
    else:
        from mmfm.measure import evaluate as run

        if manifest is None or split is None or train_manifest is None:
            raise _needed("--manifest, --split and --train-manifest", "studies to draft, and those of its training")
        check_folder(out)  # not after an hour of drafting
        card = run(
            checkpoint=checkpoint,
            manifest=manifest,
            split=split,
            train_manifest=train_manifest,
            out=out,
            leaderboard=leaderboard,
            summary=summary,
            write_card=write_card,
            device=device,
            robustness=robustness,
            **options,
        )
    missing = [f"control {name}" for name in card.controls_not_run] + list(card.not_scored)
    not_run = [f"not run or not scored, the page says why: {', '.join(missing).replace('_', ' ')}"] if missing else []
    print("\n".join([*card.to_know(), *card.verdicts(), *not_run, f"card, page and drafts: {out}"]))


@app.command()
def evaluate_answers(
    answers: Annotated[Path, typer.Option(help="One JSON object a line: question_id and answer.")],
    manifest: ManifestPath,
    split: Split,
    out: Annotated[Path, typer.Option(help="Folder for the card and the answers.")],
    train_manifest: Annotated[Path | None, typer.Option(help="Whose train split the controls learn from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Score answers to the questions of a manifest beside answers that look at no image."""
    from mmfm.evaluation.questions import evaluate_answers as run

    card = run(answers=answers, manifest=manifest, split=split, train_manifest=train_manifest, out=out, seed=seed)
    print("\n".join([*card.lines(), f"card and answers: {out}"]))


@app.command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that mmfm evaluate wrote.")],
    page: Annotated[Path, typer.Option(help="The page that gets a row and all tables of each.")],
    summary: Annotated[Path | None, typer.Option(help="A page that gets the headline scores, between markers.")] = None,
) -> None:
    """Write the score cards of evaluations into a leaderboard page, such as experiments/README.md."""
    from mmfm.evaluation import Scorecard, update_leaderboard, update_summary

    for card in [Scorecard.read(folder / "scorecard.json") for folder in folders]:
        update_leaderboard(page, card)
        if summary is not None:
            update_summary(summary, card)


@app.command()
def deid(
    path: Annotated[Path, typer.Argument(metavar="IN", help="A folder, zip or file of DICOM.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    key: Annotated[Path, typer.Option(metavar="KEYFILE", help="16 random bytes or more; same key, same replacements.")],
    profile: Annotated[Profile, typer.Option(help="The profile of PS3.15 Annex E.")] = Profile.BASIC,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="device-identity, institution-identity, longitudinal-full-dates or longitudinal-modified-dates,"
            " patient-characteristics, safe-private, uids; may be repeated.",
        ),
    ] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="descriptors, pixel-data; may be repeated. Not built: graphics, recognizable-visual-features,"
            " structured-content (what they would clean is removed, faces stay).",
        ),
    ] = None,
) -> None:
    """Write DICOM objects de-identified by PS3.15; what may show identity in its pixels goes to OUT/quarantine."""
    from mmfm.io.deid import deidentify

    done = deidentify(path, out, key=key, retain=retain or [], clean=clean or [])
    print(f"{done.written} objects written, {sum(done.quarantined.values())} in quarantine: {out}")
    for reason, count in done.refused.items():
        print(f"{count} refused: {reason}", file=sys.stderr)
    if done.without_pixels:
        print(f"{done.without_pixels} images had no pixels")
    if unseen := sum(done.pixels_not_searched.values()):
        print(f"in the pixels of {unseen} objects nothing looked for burned-in text")
    print(done.notice)


@app.command()
def pull(
    url: Annotated[str, typer.Argument(metavar="URL", help="DICOMweb service, such as https://host/dicom-web.")],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="New folder for what is retrieved.")] = None,
    study: Annotated[str | None, typer.Option(metavar="UID", help="Study to retrieve.")] = None,
    series: Annotated[str | None, typer.Option(metavar="UID", help="Only this series of it.")] = None,
    find: Annotated[bool, typer.Option("--find", help="List the studies that match, and retrieve none.")] = False,
    patient_id: Annotated[str | None, typer.Option(metavar="ID", help="With --find: of this patient.")] = None,
    modality: Annotated[str | None, typer.Option(metavar="CODE", help="With --find: with images such as CT.")] = None,
    date: Annotated[
        str | None, typer.Option(metavar="DATE", help="With --find: YYYYMMDD or YYYYMMDD-YYYYMMDD.")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="With --find: show who the patients are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --find: print JSON.")] = False,
) -> None:
    """Retrieve a study from a PACS (WADO-RS), or find one there (QIDO-RS).

    Hosts have to be listed in MMFM_PACS_HOSTS; credentials stand in MMFM_PACS_AUTH or in the file MMFM_PACS_AUTH_FILE.
    """
    filters = patient_id is not None or modality or date or names or as_json
    if (out or study or series) if find else (filters or not (out and study)):
        raise ConfigError(
            "mmfm pull",
            expected="either --find with what belongs to it, or OUT and --study",
            found="both, or neither",
            fix="see mmfm pull --help",
        )
    from mmfm.io import dicomweb

    if out and study:
        pulled = dicomweb.pull(url, out, study_uid=study, series_uid=series)
        print(f"{pulled.instances} instances, {pulled.size / 1e6:.1f} MB: {out}")
        if pulled.refusals:
            print(pulled.refusals, file=sys.stderr)
        return
    studies = dicomweb.find(url, patient_id=patient_id, modality=modality, date=date)
    print(dicomweb.found_json(studies, names=names) if as_json else dicomweb.found_text(studies, names=names))


@app.command()
def push(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, zip or file; its DICOM files are sent.")],
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="https://host/dicom-web for STOW-RS, dicom://AET@host:port for C-STORE."),
    ],
    calling_aet: Annotated[str, typer.Option(metavar="AET", help="For C-STORE: the name of this machine.")] = "MMFM",
) -> None:
    """Send DICOM files to a PACS, as they are but for the preamble: over DICOMweb (STOW-RS), or by C-STORE.

    Hosts have to be listed in MMFM_PACS_HOSTS; credentials stand in MMFM_PACS_AUTH or in the file MMFM_PACS_AUTH_FILE.
    """
    if url.lower().startswith("dicom://"):
        from mmfm.io import dimse

        pushed = dimse.push(url, path, calling_aet=calling_aet)
    else:
        from mmfm.io import dicomweb

        pushed = dicomweb.push(url, path)
    skipped = f"; {pushed.skipped} other files were not sent" if pushed.skipped else ""
    print(f"{pushed.stored} instances stored{skipped}")
    if pushed.reasons:
        print(pushed.reasons, file=sys.stderr)
    if pushed.refused:
        raise typer.Exit(2)


@app.command()
def doctor() -> None:
    """Say what of this machine mmfm can use, and what is missing."""
    from mmfm.doctor import main as run

    raise typer.Exit(run())


@app.command()
def demo(
    checkpoint: CheckpointName = DEFAULT_CHECKPOINT,
    port: Annotated[int, typer.Option(help="Port of the page on 127.0.0.1.")] = 7860,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Open the page after the drafts.")] = True,
    data: Annotated[Path | None, typer.Option(help="IU X-Ray as downloaded, for a real study first.")] = None,
    device: Device = "auto",
) -> None:
    """Draft sample studies, print them, then serve the page."""
    import tempfile

    from mmfm.ui.page import private_cache, serve_page

    cache = private_cache()  # before gradio is imported
    try:
        page = _load_demo("report_chest_radiograph")
        from mmfm.inference import AutoReporter, Reporter
        from mmfm.ui.samples import print_drafts, samples, volume_samples

        reporter = Reporter.from_pretrained(checkpoint, device=device)
        with tempfile.TemporaryDirectory(prefix="mmfm-samples-") as folder:
            print_drafts(reporter, samples(folder, source=data))
            if checkpoint == DEFAULT_CHECKPOINT:
                print_drafts(AutoReporter(device=device), volume_samples(folder))
        if serve:
            serve_page(page.build(reporter), port=port)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def main() -> None:
    """Runs the command line; an error for the user is one line on stderr and exit code 2."""
    try:
        app()
    except MmfmError as error:
        print(f"mmfm: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _prior_study(path: Path, studies: int) -> Study:
    """Returns the one study under ``--prior``, where it is one study that it is compared with."""
    from mmfm.io import read

    found = read(path).require_studies("--prior")
    if len(found) != 1 or studies != 1:
        raise ConfigError(
            "--prior",
            expected="one study, beside one study",
            found=f"{len(found)} beside {studies}",
            fix="give the paths of one study each",
        )
    return found[0]


def _needed(options: str, what: str) -> ConfigError:
    return ConfigError("mmfm evaluate", expected=f"{options}: {what}", found="none", fix="see mmfm evaluate --help")


def _refuse_ignored(context: typer.Context) -> None:
    """Raises ConfigError where an option of ``mmfm evaluate`` was given that would do nothing beside the others."""
    given = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    checkpoint_only = {"device", "robustness", "write_card"}
    file_only = {"references", "train_references", "control", "name", "thresholds"}
    if "compare" in given:
        beside, ignored = "--compare", given - {"compare", "out", "seed"}
    elif "predictions" in given:
        beside, ignored = "--predictions", given & checkpoint_only
        if not {"manifest", "train_manifest"} <= given:  # else it says how pictures are prepared
            ignored |= given & {"checkpoint"}
        if "manifest" not in given:
            beside, ignored = f"{beside} without --manifest", ignored | given & {"split"}
    else:
        beside, ignored = "drafts of a checkpoint (no --predictions)", given & file_only
    if ignored:
        raise ConfigError(
            "mmfm evaluate",
            expected=f"options that go with {beside}",
            found=", ".join(f"--{name.replace('_', '-')}" for name in sorted(ignored)),
            fix="leave them out",
        )


def _load_demo(name: str) -> ModuleType:
    """Returns a file of ``demos/``, which lies in the checkout and in no package."""
    from importlib.util import module_from_spec, spec_from_file_location

    file = Path(__file__).parents[1] / "demos" / f"{name}.py"
    if not file.is_file():
        raise ConfigError(
            "demo",
            expected="a checkout of mmfm",
            found="an installation without demos/",
            fix="clone the repository and run it there",
        )
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
