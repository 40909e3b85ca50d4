"""Each step as a run of its own, against a real Prefect server: what it does, and what it says when it is not its turn."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.admission import admit
from flows.alone import UP_TO_DATE
from flows.round import QUEUED
from flows.settings import Settings
from flows.wiring import prepared

STEPS = """
import json, sys
from alloop.errors import AlloopError
from flows.alone import propose_next, retrain, sample_posterior
from flows.campaign import run_campaign
from flows.label_batch import LabelBatch, label_batch
from flows.round import one_round
from flows.wiring import CampaignRef
ref = CampaignRef.model_validate_json(sys.argv[1])
said = []
def note(flow, *arguments):
    try:
        said.append(flow(*arguments))
    except AlloopError as error:
        said.append({"refused": error.came})
note(sample_posterior, ref)
note(propose_next, ref)
note(retrain, ref)
note(label_batch, LabelBatch(**ref.model_dump()))
note(one_round, ref)
note(propose_next, ref)
note(sample_posterior, ref)
note(propose_next, ref)
note(run_campaign, ref)
print(json.dumps(said))
"""


@pytest.mark.timeout(3600)
def test_a_campaign_step_by_step(server: dict[str, str], tmp_path: Path, write_campaign: Callable[..., Path]) -> None:
    campaign = prepared(write_campaign(tmp_path, "water"), Settings())
    admit(campaign, Settings())
    settings = {"ALLOOP_LABEL_WORKERS": "1", "ALLOOP_SAMPLER_PROCESSES": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, campaign.ref.model_dump_json()],
        env={**os.environ, **server, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    too_early, queued, awaited, labeled, first, not_drawn, drawn, decided, over = json.loads(done.stdout)
    assert "is in round 0" in too_early["refused"]
    assert queued == {"round": 0, "stop": None, "sentence": QUEUED}
    assert awaited["sentence"] == UP_TO_DATE, "its labels are awaited"
    assert labeled == {"complete": 8, "failed": 0}
    assert (first["round"], first["stop"]) == (0, None)
    assert not_drawn["refused"] == "it is not drawn"
    assert drawn["sentence"] == "the posterior of round 1 is drawn"
    assert (decided["round"], decided["stop"]) == (1, "CAP_ROUNDS")
    assert over == decided | {"sentence": f"the campaign has stopped: {decided['sentence']}"}
