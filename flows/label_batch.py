"""LABEL as a run of its own: a chunk of labels, computed on whatever machine took the run."""

import signal

from prefect import flow
from pydantic import Field

from flows.due import tell_if_due
from flows.interrupt import heeded_once
from flows.labeling import Share, label_waiting
from flows.progress import Step
from flows.settings import load_settings
from flows.turn import end_with_worker
from flows.wiring import CampaignRef, current_round, open_registry


class LabelBatch(CampaignRef):
    """What a chunk may take from the queue. Its rows are claimed when it runs, so that a chunk that runs twice labels once."""

    round: int | None = Field(default=None, ge=0, description="labels that this round asked for; of all rounds if left out")
    limit: int | None = Field(default=None, ge=1, description="at most this many labels; all that wait if left out")
    chunk: int = Field(default=0, ge=0, description="its number among the chunks of a round, for its name")

    @property
    def ref(self) -> CampaignRef:
        """The campaign alone."""
        return CampaignRef(campaign=self.campaign, database=self.database, files=self.files)

    @property
    def title(self) -> str:
        """Campaign, round, chunk: the name of the run."""
        asked = "all rounds" if self.round is None else f"round {self.round}"
        return f"{self.campaign} / {asked} / chunk {self.chunk}"


@flow(name="label-batch", flow_run_name="{batch.title}", retries=0, persist_result=False)
def label_batch(batch: LabelBatch) -> dict[str, int]:
    """Compute labels that wait in the registry. Ended early, it gives back what it holds. Where its labels call for retraining,
    an event says so.

    Returns {"complete", "failed"}: attempts of this run. Who tries a label again is the registry's affair: no retries here.
    """
    end_with_worker()
    settings = load_settings()
    with heeded_once(signal.SIGTERM, signal.SIGINT), open_registry(batch, settings) as registry:
        round = current_round(registry, batch.campaign) if batch.round is None else batch.round
        voice = Step(batch.campaign, round, "label")
        tally = label_waiting(registry, batch.campaign, settings, voice, Share(round=batch.round, limit=batch.limit))
        tell_if_due(registry, batch.ref)
    voice.say(f"chunk {batch.chunk}: {tally.complete} labeled, {tally.failed} attempts failed")
    return {"complete": tally.complete, "failed": tally.failed}
