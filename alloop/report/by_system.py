"""A campaign of several systems, each in a row: what it was given, how well it is known, whether it still learns."""

from collections import Counter

import numpy as np

from alloop.campaign.decide import accurate_fraction
from alloop.campaign.plateau import probe_q95
from alloop.registry.status import LabelStatus
from alloop.report.data import ReportData
from alloop.report.tables import Table
from alloop.structures.systems import system_of
from alloop.training.training_set import Purpose

HEAD = ("system", "labels", "force RMSE, meV/Å", "q95 σ, first", "now, meV/Å", "accurate frames", "stable", "still learns")


def by_system(data: ReportData) -> Table:
    """Without rows where there is one system, or no round with a model. Labels are complete ones, to train and calibrate on;
    RMSE is that on the evaluation frames of the system."""
    last = data.last
    names = () if last is None else last.report.probe.names
    if last is None or len(names) < 2:
        return Table((), ())
    labeled = Counter(
        system_of(record.proposal.structure)
        for record in data.proposals
        if record.status is LabelStatus.COMPLETE and record.proposal.purpose is not Purpose.EVALUATION
    )
    errors = _rmse(data)
    finished = () if last.decision is None else last.decision.finished
    tolerance = data.config.stop.force_tolerance_ev_per_angstrom
    rows = []
    for name in names:
        first, now = data.rounds[0].report.probe.of(name), last.report.probe.of(name)
        rows.append(
            (
                name,
                str(labeled[name]),
                _mev(errors.get(name)),
                _mev(probe_q95(first)),
                _mev(probe_q95(now)),
                f"{100 * accurate_fraction(now, tolerance):.0f} %",
                f"{sum(now.stable)} of {len(now.stable)}",
                "no" if name in finished else "yes",
            )
        )
    return Table(HEAD, tuple(rows), words=(0, 7))


def _rmse(data: ReportData) -> dict[str, float]:
    """Of the mean forces, in eV/Å, by system; empty where the arrays were not kept."""
    if data.evaluation is None:
        return {}
    systems = {
        record.proposal.structure.structure_id: system_of(record.proposal.structure)
        for record in data.proposals
        if record.proposal.purpose is Purpose.EVALUATION
    }
    by_frame = np.split(data.evaluation.force_errors, np.cumsum(data.evaluation.atoms)[:-1])
    squares: dict[str, list[float]] = {}
    for structure_id, errors in zip(data.evaluation.structure_ids, by_frame, strict=True):
        if str(structure_id) in systems:
            squares.setdefault(systems[str(structure_id)], []).extend(np.square(errors).ravel())
    return {name: float(np.sqrt(np.mean(found))) for name, found in squares.items()}


def _mev(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.0f}"
