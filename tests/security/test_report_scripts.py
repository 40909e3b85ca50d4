"""S10: script in anything that a report shows comes out as text."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from alloop.campaign.state import Decision, StopReason
from alloop.config import CampaignConfig, parse_config
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.labels.level_of_theory import AseLevel
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.report.data import gather
from alloop.report.html import render
from alloop.training.training_set import Purpose
from benchmarks.stress.queues import WATER

RUN = "alert(1)"
PAYLOADS = (
    f"<script>{RUN}</script>",
    f"<SCRIPT SRC=data:text/javascript,{RUN}></SCRIPT>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"<img src=x onerror={RUN}>",
    f'"><img src=x onerror="{RUN}">',
    f"'><img src=x onerror='{RUN}'>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"</svg><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</pre><script>{RUN}</script>",
    f"</code><script>{RUN}</script>",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"<a href=javascript:{RUN}>x</a>",
    f"<a href='  JaVaScRiPt:{RUN}'>x</a>",
    f"<iframe srcdoc='<script>{RUN}</script>'></iframe>",
    f"<object data=data:text/html,<script>{RUN}</script>></object>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    f"<style>@import 'javascript:{RUN}'</style>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    f"<base href=javascript:{RUN}//>",
    f"`<script>{RUN}</script>`",
    f"{{{{ ''.__class__ }}}}<script>{RUN}</script>",
    f"{{% include 'x' %}}<script>{RUN}</script>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"\\x3cscript\\x3e{RUN}\u2028<script\x0b>{RUN}</script>",
)


class Page(HTMLParser):
    """The tags of a page, and their attributes that run something or lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.dangerous: list[tuple[str, str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            leads = name in ("src", "href", "data", "srcdoc", "action", "xlink:href") and not (value or "").startswith("#")
            if name.startswith("on") or leads:
                self.dangerous.append((tag, name, value))


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a campaign with plain names."""
    path = tmp_path_factory.mktemp("harmless")
    with Registry.open(path / "registry.db", create=True) as registry:
        return Page(page_of(registry, "plain"))


def page_of(registry: Registry, payload: str) -> str:
    """The report of a campaign that has `payload` wherever a name, a message or a fact is free."""
    level = AseLevel(factory="benchmarks.stress.hazards:Talker", description=payload)
    values = {"name": "water", "system": {"structure": f"{payload}.xyz"}, "labeler": level.model_dump()}
    config = parse_config(values)
    registry.create_campaign(config, [WATER])
    queue(registry, config)
    sound, failed = registry.claim(this_process(), limit=2, lease_seconds=60)
    forces = sound.request.structure.positions * 0.1
    registry.commit(sound, Label(-76.0, forces, None, 2.0, {payload: payload, "program": payload, "version": payload}))
    registry.fail(failed, LabelFailure(FailureKind.INPUT, payload, payload, 1.0, {payload: payload}))
    registry.record_cost("water", 0, payload[:64], 3.0, 3.0)
    registry.stop_campaign("water", Decision(stop=StopReason.CAP_ROUNDS, sentence=payload, figures={}))
    return render(gather(registry, "water"))


def queue(registry: Registry, config: CampaignConfig) -> None:
    moved = [WATER, WATER.with_positions(WATER.positions * 1.01)]
    registry.propose("water", 0, [Proposal(each, Strategy.INITIAL, Purpose.TRAIN) for each in moved], config.labeler)


def test_there_are_thirty() -> None:
    assert len(set(PAYLOADS)) == 30


@pytest.mark.parametrize("number", range(len(PAYLOADS)))
def test_script_comes_out_as_text(number: int, tmp_path: Path, harmless: Page) -> None:
    with Registry.open(tmp_path / "registry.db", create=True) as registry:
        page = page_of(registry, PAYLOADS[number])
    assert page.count("alert(1)") >= 3, "it is shown"
    found = Page(page)
    assert found.tags <= harmless.tags
    assert found.dangerous == harmless.dangerous == []
