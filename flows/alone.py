"""Steps that run by themselves: `sample-posterior`, `propose`, and `retrain`, which an automation starts."""

from typing import Any

from prefect import flow

from alloop.errors import AlloopError
from alloop.registry.registry import Registry
from flows.due import round_to_propose
from flows.pretrain import pretrain
from flows.propose import propose, propose_initial
from flows.reconcile import offer_labels
from flows.retrain import register
from flows.round import QUEUED, carry_out
from flows.sample import sample
from flows.settings import load_settings
from flows.turn import in_turn
from flows.wiring import CampaignRef, current_round, open_registry

UP_TO_DATE = "nothing to do: no new label calls for retraining, or labels are awaited"


@flow(name="sample-posterior", flow_run_name="{ref.campaign} / sample", persist_result=False)
def sample_posterior(ref: CampaignRef) -> Any:
    """Draw the posterior of the round under way, where the registry has none. Returns and raises as `run_campaign`; raises
    `AlloopError` in round 0, which has no labels to learn from."""

    def work(registry: Registry) -> dict[str, Any]:
        round = current_round(registry, ref.campaign)
        if round == 0:
            raise AlloopError(
                "a training set to learn from",
                f"{ref.campaign} is in round 0: its first labels are not registered",
                "run `label-batch`, then `retrain`, or `round`, which does all of it",
            )
        sample(ref, round)
        return {"round": round, "stop": None, "sentence": f"the posterior of round {round} is drawn"}

    return in_turn(ref, work)


@flow(name="propose", flow_run_name="{ref.campaign} / propose", persist_result=False)
def propose_next(ref: CampaignRef) -> Any:
    """Decide, and queue the next labels: in round 0 the first ones, then what the posterior of the round calls for. Returns and
    raises as `run_campaign`; raises `AlloopError` where the posterior is not drawn."""

    def work(registry: Registry) -> dict[str, Any]:
        round = current_round(registry, ref.campaign)
        if round == 0:
            propose_initial(ref, round)
            pretrain(ref)
            return {"round": round, "stop": None, "sentence": QUEUED}
        if round not in registry.posterior_rounds(ref.campaign):
            raise AlloopError(
                f"the posterior of round {round}, to propose with", "it is not drawn", "run `sample-posterior` first"
            )
        return propose(ref, round)

    return in_turn(ref, work)


@flow(name="retrain", flow_run_name="{ref.campaign} / retrain", persist_result=False)
def retrain(ref: CampaignRef) -> Any:
    """Where new labels call for it: register them, sample, decide, and ask for the next labels. Returns and raises as
    `run_campaign`."""

    def work(registry: Registry) -> dict[str, Any]:
        before, due = current_round(registry, ref.campaign), round_to_propose(registry, ref.campaign)
        if due is None:
            return {"round": before, "stop": None, "sentence": UP_TO_DATE}
        if due > before:
            if before == 0:
                pretrain(ref)
            register(ref, before)
        return carry_out(ref, due, labeling=False)

    outcome = in_turn(ref, work)
    settings = load_settings()
    with open_registry(ref, settings) as registry:
        offer_labels(registry, ref, settings)
    return outcome
