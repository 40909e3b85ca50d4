"""What `alloop compare` takes, what it refuses, and how it words what it found."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alloop.campaign.compare import Curve, Estimate, errors_of
from alloop.committee.evaluation import EvaluationArrays
from alloop.config import parse_config
from alloop.errors import InputError
from alloop.registry.records import CampaignRecord
from alloop.registry.status import CampaignStatus
from flows.cli_compare import in_words
from flows.compare import Measured, campaign_files, curve_of, refuse_incomparable, refuse_mixed_arm

CURVE = Curve(np.array([10]), np.ones((1, 2)), np.full(2, 9))


def measured(start: str = "water", **changes: Any) -> Measured:
    """A campaign with these keys, dots between sections; `start`: stands for the id of its start structure."""
    values: dict[str, Any] = {"name": "water", "system": {"structure": "water.xyz"}, "labeler": "xtb"}
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    config = parse_config(values)
    record = CampaignRecord(config.name, config, (start,), CampaignStatus.STOPPED, None, None, datetime.now(UTC))
    return Measured(Path(f"{config.proposals.strategy}-{config.seed}.yaml"), record, CURVE, ("a", "b"))


def test_an_arm_is_a_file_a_folder_or_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mixed-1/e.yaml", "mixed-2/e.yml", "random-1/e.yaml", "seeds/a.yaml", "seeds/b.yaml", "mixed-1/e.db"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()

    def found(argument: str) -> list[str]:
        return [file.as_posix() for file in campaign_files(argument)]

    assert found("mixed-1/e.yaml") == found("mixed-1") == ["mixed-1/e.yaml"]
    assert found("mixed-*") == found("mixed-*/*.y*ml") == ["mixed-1/e.yaml", "mixed-2/e.yml"]
    assert found("seeds") == ["seeds/a.yaml", "seeds/b.yaml"]
    assert len(found(".")) == 5
    Path("[1]").mkdir()
    Path("[1]/e.yaml").touch()
    assert found("[1]") == ["[1]/e.yaml"], "what is there is no pattern"
    for nothing in ("other-*", "other.yaml"):
        with pytest.raises(InputError, match="names none"):
            campaign_files(nothing)


def test_seeds_names_and_goals_may_differ_in_an_arm() -> None:
    refuse_mixed_arm([measured(seed=1), measured(seed=2, name="other", stop__max_rounds=3, system__spin_multiplicity=1)])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seed": 2, "proposals__strategy": "random"}, "proposals.strategy: mixed -> random"),
        ({"seed": 2, "posterior__samples": 4}, "posterior.samples: 8 -> 4"),
        ({"seed": 1}, "seed 1 in"),
    ],
)
def test_an_arm_of_different_campaigns_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        refuse_mixed_arm([measured(seed=1), measured(**changes)])


def test_how_campaigns_learn_may_differ_between_arms() -> None:
    refuse_incomparable([measured(), measured(proposals__strategy="random", posterior__samples=4, evaluation__frames=30)])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labeler": "gfn1"}, "labeler.method"),
        ({"evaluation__temperature_kelvin": 600}, "evaluation.temperature_kelvin: 300.0 -> 600.0"),
        ({"evaluation__dynamics": "xtb"}, "evaluation.dynamics: labeler -> xtb"),
        ({"start": "methane"}, "start structures: water.xyz and water.xyz, other atoms"),
    ],
)
def test_other_questions_are_not_comparable(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why) as refused:
        refuse_incomparable([measured(), measured(seed=2), measured(**changes)])
    assert refused.value.exit_code == 2


def arrays(ids: list[str], generator: np.random.Generator) -> EvaluationArrays:
    """Frames of 2 and 3 atoms in turn, after their ids, and errors of some size."""
    atoms = np.array([2 + (ord(key) % 2) for key in ids])
    total = int(atoms.sum())
    force = generator.normal(size=(total, 3))
    return EvaluationArrays(
        structure_ids=np.array(ids),
        atoms=atoms,
        numbers=np.ones(total, dtype=np.int64),
        energy_true=np.zeros(len(ids)),
        energy_predicted=np.zeros(len(ids)),
        energy_aleatoric_var=np.ones(len(ids)),
        energy_epistemic_var=np.ones(len(ids)),
        forces_true=force,
        forces_predicted=force + generator.normal(size=(total, 3)),
        force_aleatoric_var=np.ones(total),
        force_epistemic_var=np.ones((total, 3)),
    )


def test_a_curve_keeps_the_frames_that_all_rounds_were_measured_on() -> None:
    generator = np.random.default_rng(1)
    first, second = arrays(["a", "b", "c"], generator), arrays(["c", "d", "a"], generator)
    curve, frames = curve_of({10: first, 16: second}, "force_rmse")
    assert frames == ("a", "c")
    assert curve.components.tolist() == [9, 9]
    of_both = [each.subset(np.isin(each.structure_ids, frames)) for each in (first, second)]
    expected = [np.sqrt(np.mean(each.force_errors**2)) for each in of_both]
    assert errors_of(curve, "force_rmse") == pytest.approx(expected)
    absolute = curve_of({10: first}, "force_mae")[0]
    assert errors_of(absolute, "force_mae") == pytest.approx([np.mean(np.abs(first.force_errors))])


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(84.2, 84.2, (71.0, 98.4)), "84 (71 to 98)"),
        (Estimate(84.2, 84.2, (71.0, np.inf)), "84 (at least 71)"),
        (Estimate(84.2, 84.2, (0.0, 98.4)), "84 (at most 98)"),
        (Estimate(130.0, np.inf, (118.0, np.inf)), "more than 130 (at least 118)"),
        (Estimate(0.0, 30.0, (0.0, 41.0)), "at most 30 (at most 41)"),
        (Estimate(0.0, np.inf, (0.0, np.inf)), "not known (no bound)"),
    ],
)
def test_an_estimate_in_words(estimate: Estimate, words: str) -> None:
    assert in_words(estimate, 0) == words
