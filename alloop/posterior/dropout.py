"""The method dropout: one network trained behind fresh masks of its scalar channels, then seen behind K fixed ones (`masks`).

Gal and Ghahramani 2016 read the spread of such members as that of an approximate posterior. The masks of the members are drawn
once, so that a committee is one function of the positions and dynamics on it keeps its energy.
"""

from alloop.posterior.health import SamplerHealth
from alloop.posterior.masks import ChannelMasks
from alloop.posterior.members import MemberDraws, put_together
from alloop.posterior.methods import Task
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.trainer import Trainer, train
from alloop.sections import PosteriorConfig


class Dropout:
    """See `Method`; the one network has the steps of all chains."""

    one_network = True

    def run(self, task: Task, keeping: Keeping) -> MemberDraws:
        """All members."""
        rate, streams = task.config.dropout_rate, {"seed": task.seed, "round": task.round}
        masks = ChannelMasks(task.potential, rate, task.members, **streams, device=task.device)
        trainer = Trainer(task, (0,), task.steps * len(task.members), masks)
        training = train(trainer, keeping)
        return trainer.draws(training, masks.fixed * training.best)

    def together(self, draws: list[MemberDraws], config: PosteriorConfig) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
        """See `put_together`."""
        return put_together(draws, config.method)
