"""Networks trained to predict: Adam up the likelihood of minibatches, and of each the state that was best on held-out labels.

What an ensemble is made of (Lakshminarayanan, Pritzel and Blundell 2017), and the one network of dropout and last layer. There
is no weight decay: early stopping regularises, as in the ensemble that Rensmeyer et al. 2024 compare with, and a prior that
pulls to zero would take from the members what the labels leave free, where they ought to differ (Pearce et al. 2020). The
learning rate falls over the whole budget, so training is not cut short: the best of all validations is kept.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from alloop.errors import AlloopError
from alloop.posterior.adam import adam_step
from alloop.posterior.checkpoint import load_checkpoint, save_checkpoint
from alloop.posterior.live import Seen
from alloop.posterior.masks import ChannelMasks
from alloop.posterior.members import MemberDraws
from alloop.posterior.methods import Task
from alloop.posterior.prior import Prior
from alloop.posterior.resumable import Keeping, run_to_end
from alloop.posterior.schedules import Schedule
from alloop.rng import stream_seed
from alloop.training.objective import Objective

HELD_OUT = 0.1  # of the labels that may be trained on
VALIDATIONS = 50
EVALUATIONS_AT_ONCE = 64  # members times structures


@dataclass(frozen=True)
class Training:
    """Everything that changes while k networks are trained.

    `step` taken so far; `parameters`, Adam's moments, and the `best` parameters, all [k, P]; and [k]: the `best_score` (mean
    log likelihood of a held-out structure), the `best_step` it was found after, and how many steps were `rejected`.
    """

    step: int
    parameters: Tensor
    first_moment: Tensor
    second_moment: Tensor
    best: Tensor
    best_score: Tensor
    best_step: Tensor
    rejected: Tensor


class Trainer:
    """The `networks` (their indices name the streams) of a task, `steps` each, as one tensor program.

    With `masks` every step sees the network behind masks of its own, and scores are those of the members the masks make.
    Raises `AlloopError` where there are fewer than two labels.
    """

    def __init__(self, task: Task, networks: tuple[int, ...], steps: int, masks: ChannelMasks | None = None) -> None:
        self.task, self.steps, self.masks = task, steps, masks
        self.objective = task.objective
        split = held_out_split(len(task.labeled), task.seed, task.round)
        self.kept, self.held_out = (part.to(task.device) for part in split)
        self.schedule = Schedule(task.config.model_copy(update={"warmup_steps": steps}))
        seeds = [stream_seed(task.seed, "network", task.round, network) for network in networks]
        self.generators = [torch.Generator(task.device).manual_seed(seed) for seed in seeds]

    def start(self) -> Training:
        """From the prior. A network of an earlier round may have seen what is held out now: none is gone on with."""
        parameters = self.task.potential.layout.initial(len(self.generators), generators=self.generators)
        zeros = torch.zeros(len(self.generators), dtype=torch.int64, device=parameters.device)
        return Training(
            step=0,
            parameters=parameters,
            first_moment=torch.zeros_like(parameters),
            second_moment=torch.zeros_like(parameters),
            best=parameters,
            best_score=zeros.double() - torch.inf,
            best_step=zeros,
            rejected=zeros,
        )

    def advance(self, training: Training) -> Training:
        """One gradient and one step of Adam; a step to what is no number is refused."""
        moments = (training.first_moment, training.second_moment)
        gradient = self._gradient(training)
        if not self.schedule.learns_energy_noise(training.step):
            gradient = self.task.potential.without_energy_noise(gradient)
        parameters, (first, second) = adam_step(
            training.parameters,
            moments,
            gradient,
            steps=training.step + 1,
            rate=self.schedule.learning_rate(training.step),
            floor=self.task.config.mass_floor,
        )
        took = parameters.sum(1).isfinite()
        rows = took[:, None]
        training = replace(
            training,
            step=training.step + 1,
            parameters=torch.where(rows, parameters, training.parameters),
            first_moment=torch.where(rows, first, moments[0]),
            second_moment=torch.where(rows, second, moments[1]),
            rejected=training.rejected + ~took,
        )
        return self._validated(training) if self._validates(training.step) else training

    def _gradient(self, training: Training) -> Tensor:
        """Of -log likelihood / |D| on a minibatch, behind fresh masks if there are any; [k, P]."""
        size = len(self.kept)
        batch = self.schedule.batch_size(training.step, size)
        orders = [torch.randperm(size, generator=each, device=each.device) for each in self.generators]
        picks = torch.stack([self.kept[order[:batch]] for order in orders])
        if self.masks is None:
            return self.objective.gradient(training.parameters, picks)[0]
        masks = self.masks.fresh(self.generators)
        return masks * self.objective.gradient(masks * training.parameters, picks)[0]

    def _validates(self, step: int) -> bool:
        return step == self.steps or step % max(self.steps // VALIDATIONS, 1) == 0

    def _validated(self, training: Training) -> Training:
        score = self.score(training.parameters)
        better = score > training.best_score
        return replace(
            training,
            best=torch.where(better[:, None], training.parameters, training.best),
            best_score=torch.where(better, score, training.best_score),
            best_step=torch.where(better, training.step, training.best_step),
        )

    def score(self, parameters: Tensor) -> Tensor:
        """Mean log likelihood of a held-out structure [k], behind masks the mean over their members."""
        if self.masks is None:
            return total_log_likelihood(self.objective, parameters, self.held_out) / len(self.held_out)
        members = total_log_likelihood(self.objective, self.masks.fixed * parameters, self.held_out) / len(self.held_out)
        return members.mean(0, keepdim=True)

    def draws(self, training: Training, members: Tensor) -> MemberDraws:
        """What is left once trained: `members` [K, P] made of the best states, one of each network or all of the only one.

        The log posterior is of all labels of the task, held out or not. It is NaN where no held-out score ever was a finite
        number: what was not trained is no member.
        """
        prior = Prior(self.task.potential.layout.prior_mean().to(members.device), self.task.config.prior_std)
        everything = torch.arange(self.objective.n_structures, device=members.device)
        total = total_log_likelihood(self.objective, members, everything) + prior.log_density(members).double()
        return MemberDraws(
            parameters=members.cpu().numpy(),
            log_posterior=torch.where(training.best_score.isfinite(), total, torch.nan).cpu().numpy(),
            kept_at_step=training.best_step.expand(len(members)).cpu().numpy(),
            held_out=len(self.held_out),
            rejected=int(training.rejected.sum()),
            gradient_evaluations=self.steps * len(self.generators),
        )

    def seen(self, training: Training) -> Seen:
        """How far the training is; there are no chains to watch."""
        return Seen(training.step)

    def save(self, path: Path, training: Training, identity: str) -> None:
        """Checkpoint of everything that changes, generators included."""
        tensors = {field.name: getattr(training, field.name) for field in fields(training) if field.name != "step"}
        tensors |= {f"generator {index}": generator.get_state() for index, generator in enumerate(self.generators)}
        save_checkpoint(path, tensors, {"identity": identity, "step": training.step})

    def load(self, path: Path, identity: str) -> Training | None:
        """The checkpoint at `path`, if it is whole and of these networks (`identity`)."""
        loaded = load_checkpoint(path)
        if loaded is None or loaded[1]["identity"] != identity:
            return None
        tensors, facts = loaded
        for index, generator in enumerate(self.generators):
            generator.set_state(tensors.pop(f"generator {index}"))
        return Training(step=facts["step"], **{name: tensor.to(self.task.device) for name, tensor in tensors.items()})


def train(trainer: Trainer, keeping: Keeping) -> Training:
    """To the end of the budget, resumable."""
    return run_to_end(trainer, trainer.start, trainer.steps, keeping)


def held_out_split(count: int, seed: int, round: int) -> tuple[Tensor, Tensor]:
    """Which of `count` labels are trained on and which are held out: a random tenth, at least one, anew in each round.

    The same for all networks of a round: they differ by their starts and their minibatches. Raises `AlloopError` where nothing
    would be left.
    """
    if count < 2:
        raise AlloopError("two labels or more to train on", f"{count}", "label more, or use `posterior.method: sghmc`")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(seed, "held out", round)))
    size = max(1, int(HELD_OUT * count + 0.5))
    return order[size:].sort().values, order[:size].sort().values


def total_log_likelihood(objective: Objective, parameters: Tensor, indices: Tensor) -> Tensor:
    """Sum of the log likelihoods of the structures `indices` [n], [K, P] -> [K] in float64; all members see the same ones."""
    total = torch.zeros(len(parameters), dtype=torch.float64, device=parameters.device)
    for chunk in indices.split(max(EVALUATIONS_AT_ONCE // len(parameters), 1)):
        mean, _ = objective.log_likelihood(parameters, chunk[None])
        total += mean.double() * len(chunk)
    return total
