"""The method ensemble: K networks trained alike from different starts and on minibatches of their own (`trainer`)."""

from alloop.posterior.health import SamplerHealth
from alloop.posterior.members import MemberDraws, put_together
from alloop.posterior.methods import Task
from alloop.posterior.resumable import Keeping
from alloop.posterior.sample import PosteriorSample
from alloop.posterior.trainer import Trainer, train
from alloop.sections import PosteriorConfig


class Ensemble:
    """See `Method`; each network has the steps of a chain."""

    one_network = False

    def run(self, task: Task, keeping: Keeping) -> MemberDraws:
        """A network for each member."""
        trainer = Trainer(task, task.members, task.steps)
        training = train(trainer, keeping)
        return trainer.draws(training, training.best)

    def together(self, draws: list[MemberDraws], config: PosteriorConfig) -> tuple[tuple[PosteriorSample, ...], SamplerHealth]:
        """See `put_together`."""
        return put_together(draws, config.method)
