"""The steps of the main job, for tests that break each of them in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django_q.models import OrmQ

from feeds.audit import Actor
from feeds.models import Company, Operation
from feeds.services import links, onboarding
from feeds.states import OnboardingState, OperationKind, OperationState
from tests.factories import CompanyFactory, SourceAccountFactory
from tests.queue_drain import run_one
from tests.sandbox_process import SandboxProcess

RM = Actor(name="Rita Moreau", source="test")
ACCOUNTS = "/companies/{id}/connections/{id}/connectionInfo/bankFeedAccounts"


@dataclass(frozen=True)
class GridStep:
    """One step: the request it makes, its ledger kind, and how many steps come before it."""

    kind: OperationKind
    method: str
    path: str
    before: int

    @property
    def route(self) -> str:
        """The key of the stand-in's request counter."""
        return f"{self.method} {self.path}"

    @property
    def tries_per_attempt(self) -> int:
        """Only reads are tried again inside the client: once and two retries."""
        return 3 if self.method == "GET" else 1

    def __str__(self) -> str:
        return self.kind.value


STEPS = (
    GridStep(OperationKind.CREATE_COMPANY, "POST", "/companies", 0),
    GridStep(OperationKind.CREATE_CONNECTION, "POST", "/companies/{id}/connections", 1),
    GridStep(OperationKind.ADD_ACCOUNTS, "POST", f"{ACCOUNTS}/batch", 2),
    GridStep(OperationKind.REFRESH_LINK, "GET", "/companies/{id}/connections", 3),
)


class Story:
    """One company with two accounts, asked to be onboarded and stopped right before `step`."""

    def __init__(self, step: GridStep, codat: SandboxProcess) -> None:
        self.step = step
        self.codat = codat
        self.company: Company = CompanyFactory()
        SourceAccountFactory.create_batch(2, company=self.company)
        onboarding.request(self.company, actor=RM)
        for _done in range(step.before):  # not from the queue: a worker's heartbeats may be waiting there too
            onboarding.advance(self.company.pk)
        if step.kind == OperationKind.REFRESH_LINK:
            onboarding.advance(self.company.pk)  # notes that nothing is missing
            self.ask_for_link()

    def ask_for_link(self) -> None:
        """Press Refresh link."""
        links.refresh(self.company.connections.get(), actor=RM)

    def ask_again(self) -> None:
        """What a person presses after a refusal: Retry, or Refresh link once more."""
        if self.step.kind == OperationKind.REFRESH_LINK:
            self.ask_for_link()
        else:
            onboarding.request(self.company, actor=RM)

    def operation(self) -> Operation:
        """The latest ledger row of the step."""
        return Operation.objects.filter(company=self.company, kind=self.step.kind).latest("pk")

    def is_over(self) -> bool:
        """Whether the step and everything after it is done."""
        self.company.refresh_from_db()
        ready = self.company.onboarding_state == OnboardingState.LINK_READY
        return ready and self.operation().state == OperationState.SUCCEEDED

    def assert_everything_exists_exactly_once(self, open_page: Callable[[Company], str]) -> None:
        """In Codat, in our mirror, and on the screen."""
        objects = self.codat.stats()["objects"]
        assert (objects["companies"], objects["connections"], objects["source_accounts"]) == (1, 1, 2)
        assert self.is_over(), (self.company.onboarding_state, self.operation().state, self.operation().error)
        assert not Operation.objects.open().exists()
        connection = self.company.connections.get()
        assert connection.link_url
        assert set(self.company.source_accounts.values_list("status", "connection")) == {("pending", connection.pk)}
        assert "Link ready" in open_page(self.company)


def run_next_task() -> None:
    """Run the task at the head of the real queue."""
    row = OrmQ.objects.order_by("id").first()
    assert row is not None, "nothing is queued"
    run_one(row)
