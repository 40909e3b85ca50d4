"""Posteriors: rows that say where samples came from, and one safetensors file of parameters each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from alloop.digests import digest_json
from alloop.errors import CorruptFileError, InputError, NotFoundError
from alloop.posterior.sample import PosteriorSample
from alloop.registry.campaigns import find_campaign
from alloop.registry.records import PosteriorRecord
from alloop.registry.rows import change, insert_new
from alloop.registry.tables import PosteriorRow, SampleRow, TrainingSetRow


def parameters_file(samples: Sequence[PosteriorSample]) -> bytes:
    """`parameters` [K, P] float32 as a safetensors file. Raises `InputError` for none, unequal or non-finite samples."""
    shapes = {sample.parameters.shape for sample in samples}
    if len(shapes) != 1 or not all(np.isfinite(sample.parameters).all() for sample in samples):
        raise InputError(
            "posterior samples with equally many finite parameters",
            f"{len(samples)} samples of shapes {sorted(shapes)}, NaN or infinity among them"
            if len(shapes) == 1
            else f"{len(samples)} samples of shapes {sorted(shapes)}",
            "sample again with a smaller step",
        )
    return save({"parameters": np.stack([sample.parameters for sample in samples]).astype(np.float32)})


def read_parameters(content: bytes) -> NDArray[np.float32]:
    """[K, P]. Raises `CorruptFileError` for a file that holds something else."""
    try:
        found = load(content)["parameters"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError("a safetensors file with `parameters`", str(error), "sample the round again") from None
    if found.ndim != 2 or found.dtype != np.float32:
        came = f"{found.dtype} of shape {found.shape}"
        raise CorruptFileError("`parameters` [samples, numbers] of float32", came, "sample the round again")
    return found


def add_posterior(
    session: Session,
    campaign: str,
    round: int,
    training_set: str,
    blob: str,
    samples: Sequence[PosteriorSample],
    facts: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> str:
    """Store the posterior of a round, whose parameters are the file `blob`; the first one stays. `facts`: model and health."""
    campaign_id = find_campaign(session, campaign).campaign_id
    if session.get(TrainingSetRow, training_set) is None:
        raise NotFoundError("the training set of the samples", f"{training_set!r}", "snapshot the training set first")
    model, health = facts
    posterior_id = digest_json([campaign, round, training_set, blob])
    row = {
        "posterior_id": posterior_id,
        "campaign_id": campaign_id,
        "round": round,
        "training_set": training_set,
        "parameters": blob,
        "model": dict(model),
        "health": dict(health),
    }
    insert_new(session, PosteriorRow, [row])
    stored = session.scalars(
        select(PosteriorRow.posterior_id).where(PosteriorRow.campaign_id == campaign_id, PosteriorRow.round == round)
    ).one()
    if stored == posterior_id:
        draws = [
            {"posterior_id": stored, "position": at, "chain": s.chain, "step": s.step, "log_posterior": s.log_posterior}
            for at, s in enumerate(samples)
        ]
        insert_new(session, SampleRow, draws)
    return stored


def find_posterior(
    session: Session, campaign: str, round: int | None, posterior_id: str | None
) -> tuple[PosteriorRow, list[SampleRow]] | None:
    """The rows of the posterior of a round or of an id, or of the latest one."""
    query = select(PosteriorRow).where(PosteriorRow.campaign_id == find_campaign(session, campaign).campaign_id)
    if round is not None:
        query = query.where(PosteriorRow.round == round)
    if posterior_id is not None:
        query = query.where(PosteriorRow.posterior_id == posterior_id)
    row = session.scalar(query.order_by(PosteriorRow.round.desc()).limit(1))
    if row is None:
        return None
    samples = session.scalars(select(SampleRow).where(SampleRow.posterior_id == row.posterior_id).order_by(SampleRow.position))
    return row, list(samples)


def posterior_rounds(session: Session, campaign: str) -> list[int]:
    """The rounds that have a posterior, in order."""
    campaign_id = find_campaign(session, campaign).campaign_id
    return list(
        session.scalars(select(PosteriorRow.round).where(PosteriorRow.campaign_id == campaign_id).order_by(PosteriorRow.round))
    )


def posterior_record(row: PosteriorRow, samples: Sequence[SampleRow], parameters: NDArray[np.float32]) -> PosteriorRecord:
    return PosteriorRecord(
        posterior_id=row.posterior_id,
        round=row.round,
        training_set=row.training_set,
        samples=tuple(
            PosteriorSample(parameters[sample.position], sample.chain, sample.step, sample.log_posterior) for sample in samples
        ),
        model=row.model,
        health=row.health,
        calibration=row.calibration,
    )


def set_calibration(session: Session, posterior_id: str, calibration: Mapping[str, Any]) -> None:
    """Raises `NotFoundError` for an unknown posterior."""
    found = change(
        session,
        update(PosteriorRow)
        .where(PosteriorRow.posterior_id == posterior_id)
        .values(calibration=dict(calibration))
        .returning(PosteriorRow.posterior_id),
    ).all()
    if not found:
        raise NotFoundError("a posterior of this registry", f"{posterior_id!r}", "add the posterior first")
