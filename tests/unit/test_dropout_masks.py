"""Dropout of scalar channels: every reader of a dropped channel is masked, at the right rate, and symmetries stay."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from alloop.model.potential import Potential
from alloop.model.reference_energies import Scaling
from alloop.posterior.masks import ChannelMasks
from alloop.sections import ModelConfig
from alloop.structures.batch import StructureBatch

MODEL = ModelConfig(channels=4, layers=2, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
SCALING = Scaling(species=(1, 8), reference_energies_ev=(-10.0, -80.0), energy_scale=1.3, average_neighbors=2.0)


@pytest.mark.parametrize(("parity", "force_noise"), [("natural", "isotropic"), ("both", "covariance"), ("none", "isotropic")])
def test_a_dropped_channel_is_read_by_nobody(parity, force_noise, water):
    """What writes a dropped channel can be anything; what writes another one cannot. Every reader is found, at every place."""
    options = {"parity": parity, "learn_energy_noise": True, "force_noise": force_noise, "l_max": 2}
    potential = Potential(MODEL.model_copy(update=options), SCALING)
    masks = ChannelMasks(potential, 0.5, (0,), seed=1, round=1)
    batch = StructureBatch.of([water], 5.0, dtype=torch.float64)
    start = torch.randn(1, potential.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kind = "0n" if parity == "none" else "0e"
    for place in range(2):
        kept = torch.ones(1, masks.channels, dtype=torch.bool)
        kept[0, 4 * place + 1] = False
        factors = masks.factors(kept).double()
        outputs = []
        for channel in (None, 1, 2):
            written = start.clone()
            if channel is not None:
                for name in (f"layer{place}.update.{kind}", f"layer{place}.self.{kind}"):
                    potential.layout.views(written)[name][:, :, channel] += 5.0
            raw = potential.evaluate(factors * written, batch)
            assert raw.forces is not None
            noise = [raw.log_sigma_energy, raw.log_sigma_force]
            noise += [] if raw.log_shape_force is None else [raw.log_shape_force.flatten(1)]
            outputs.append(torch.cat([raw.energy, raw.forces.flatten(1), *noise], 1))
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
        assert (outputs[2] - outputs[0]).abs().max() > 1e-3


def test_masks_drop_the_share_they_should_and_are_fixed_by_the_seed():
    potential = Potential(MODEL, SCALING)
    masks = ChannelMasks(potential, 0.3, tuple(range(2000)), seed=7, round=1)
    entry = potential.layout.entries["readout.0"]
    rows = masks.fixed[:, entry.offset : entry.offset + entry.size : entry.shape[1]]
    share = float((rows == 0.0).double().mean())
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / rows.numel()) ** 0.5
    torch.testing.assert_close(rows[rows > 0.0], torch.full_like(rows[rows > 0.0], 1 / 0.7))
    again = ChannelMasks(potential, 0.3, (5,), seed=7, round=1).fixed[0]
    assert torch.equal(again, masks.fixed[5])
    untouched = [name for name in potential.layout.entries if name.startswith(("embedding", "layer0", "readout.1"))]
    assert all((potential.layout.views(masks.fixed)[name] == 1.0).all() for name in untouched)


@pytest.mark.parametrize("reflect", [1, -1])
def test_a_dropout_member_turns_with_the_molecule_and_its_forces_are_the_slope_of_its_energy(reflect, water):
    potential = Potential(MODEL.model_copy(update={"parity": "both", "l_max": 2}), SCALING)
    masks = ChannelMasks(potential, 0.3, (0, 1, 2), seed=7, round=1)
    generator = torch.Generator().manual_seed(3)
    members = masks.fixed.double() * torch.randn(1, potential.n_parameters, dtype=torch.float64, generator=generator)

    def predict(positions):
        return potential(members, StructureBatch.of([water.with_positions(positions)], 5.0, dtype=torch.float64))

    turn = reflect * Rotation.random(random_state=3).as_matrix()
    here, there = predict(water.positions), predict(water.positions @ turn.T)
    assert (here.energy[0] - here.energy[1]).abs() > 1e-3
    torch.testing.assert_close(there.energy, here.energy)
    torch.testing.assert_close(there.forces, here.forces @ torch.tensor(turn).T)
    torch.testing.assert_close(there.log_variance_forces, here.log_variance_forces)
    step = np.zeros((3, 3))
    step[1, 2] = 1e-4
    slope = (predict(water.positions + step).energy - predict(water.positions - step).energy)[:, 0] / 2e-4
    torch.testing.assert_close(here.forces[:, 1, 2], -slope, atol=2e-6, rtol=1e-5)
