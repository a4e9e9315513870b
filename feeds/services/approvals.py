"""Four eyes: one person asks, another approves, and what runs is exactly what was asked.

A request freezes the objects, the fields, the consequences as they were shown and the state they were worded from. A
decision is taken under a lock on the request's row, so of two who press at once one decides; what was approved is
carried out in the same transaction (for many rows: by the queue, each row and its place in one transaction), so it
happens once or not at all. A state that differs from the one it was judged on is refused: it has to be asked anew.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.db.models import Model, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from feeds import audit, queue
from feeds.audit import Actor
from feeds.codat.errors import CodatError
from feeds.models import Approval, Company, Operation
from feeds.services import access, ledger, outbox
from feeds.services.approval_rules import BULK, LABELS, MEANINGS, RULES, Rule, State, company_of
from feeds.services.errors import Refused
from feeds.states import ApprovalState, MailKind, Text, describe
from feeds.wording import recorded, retold

log = structlog.get_logger(__name__)

DECIDE = "feeds.decide_approval"
CHANGE_ROLES = "change_roles"
BUDGET = 40.0
"""Seconds after which the rest of many rows is left to another task: a queue task lives sixty."""
STALLED = timedelta(minutes=5)
"""An approved request without progress for so long has lost its task."""
NAMED = 10
"""Refused rows that an outcome names."""


class AlreadyAsked(Refused):
    """The same is asked for already; `approval` is the request that waits."""

    def __init__(self, approval: Approval) -> None:
        super().__init__(_("This is asked for already, by %s, and not decided yet.") % approval.requested_by_name)
        self.approval = approval


# --- Is it needed? ---------------------------------------------------------------------------------------------------
def is_needed(action: str) -> bool:
    """Whether `action` of `RULES` waits for a second person here."""
    return RULES[action].setting in settings.FOUR_EYES


def is_needed_for(rows: int) -> bool:
    """Whether doing something to so many rows at once waits for a second person here."""
    return BULK in settings.FOUR_EYES and rows > settings.FOUR_EYES_BULK_ROWS


# --- Asking ----------------------------------------------------------------------------------------------------------
def fingerprint(action: str, target: Model) -> str:
    """What the state of `target` is now, as a short hash: the same as long as nothing that matters has changed."""
    return ledger.fingerprint(RULES[action].state(target))[:32]


def open_request(action: str, target: Model) -> Approval | None:
    """The request for the same thing that is not finished, if there is one."""
    return Approval.objects.filter(action=action, key=_key_of(target), finished_at__isnull=True).first()


def ask(
    action: str, target: Model, *, data: Mapping[str, Any], consequences: Sequence[Text], reason: str, actor: Actor
) -> Approval:
    """Ask for `action` on one object; nothing is done. `data`: cleaned form data, of which the rule's fields are kept.

    Raises AlreadyAsked, and Refused when the object is gone or nobody is named as asking.
    """
    rule = RULES[action]
    if unknown := data.keys() - {*rule.fields, "reason"}:
        raise ValueError(f"{action} would be approved without {', '.join(sorted(unknown))}")
    with _asking(actor, reason):
        held = rule.model._default_manager.filter(pk=target.pk).first()
        if held is None:
            raise Refused(_("This no longer exists."))
        with recorded():
            name, words = str(held), [str(sentence) for sentence in consequences]
        return _write(
            rule,
            action,
            actor=actor,
            key=_key_of(held),
            target_pk=held.pk,
            target_name=name,
            company=company_of(held),
            payload={"data": {name: data[name] for name in rule.fields}},
            judged_on=rule.state(held),
            consequences=words,
            reason=reason.strip(),
        )


def ask_many(
    action: str, targets: Sequence[Model], *, consequences: Sequence[Text], reason: str, actor: Actor
) -> Approval:
    """Ask for `action` on each of `targets`, frozen as a list. Raises AlreadyAsked and Refused."""
    rule = RULES[action]
    with recorded():
        name = ngettext("%(count)d row", "%(count)d rows", len(targets)) % {"count": len(targets)}
        words = [str(sentence) for sentence in consequences]
        rows = [[it.pk, str(it), fingerprint(action, it)] for it in targets]
    pks = ",".join(str(pk) for pk in sorted(target.pk for target in targets))
    with _asking(actor, reason):
        return _write(
            rule,
            action,
            actor=actor,
            key=f"{rule.model._meta.label_lower}:{hashlib.sha256(pks.encode()).hexdigest()[:40]}",
            target_name=name,
            payload={"rows": rows},
            consequences=words,
            reason=reason.strip(),
        )


@contextmanager
def _asking(actor: Actor, reason: str) -> Iterator[None]:
    if actor.user is None:
        raise Refused(_("Only a person can ask for an approval."))
    if not reason.strip():
        raise Refused(_("Give a reason: your colleague decides on it."))
    with audit.acting(replace(actor, reason=reason.strip())), transaction.atomic():
        yield


def _key_of(target: Model) -> str:
    return f"{target._meta.label_lower}:{target.pk}"


def _write(rule: Rule, action: str, *, actor: Actor, key: str, target_name: str, **frozen: Any) -> Approval:
    now = timezone.now()
    # What nobody decided in time must not stand in the way.
    for late in Approval.objects.filter(action=action, key=key, finished_at__isnull=True, expires_at__lte=now):
        _expire(late.pk)
    try:
        with transaction.atomic():
            approval = Approval.objects.create(
                action=action,
                key=key,
                target_type=ContentType.objects.get_for_model(rule.model),
                target_name=target_name[:300],
                requested_by=actor.user,
                requested_by_name=actor.name,
                expires_at=now + timedelta(hours=settings.FOUR_EYES_EXPIRE_HOURS),
                **frozen,
            )
    except IntegrityError as error:
        held = Approval.objects.filter(action=action, key=key, finished_at__isnull=True).first()
        if held is None:
            raise
        raise AlreadyAsked(held) from error
    _tell_approvers(approval)
    return approval


# --- Who decides -----------------------------------------------------------------------------------------------------
def people_who_may_decide(action: str) -> QuerySet[User]:
    """Active staff who may do `action` themselves and may decide about others' requests."""
    may = [
        User.objects.with_perm(label, backend=access.MODEL_BACKEND).values("pk")
        for label in (DECIDE, _permission(action))
    ]
    return User.objects.filter(is_active=True, is_staff=True, pk__in=may[0]).filter(pk__in=may[1])


def deciders_of(approval: Approval) -> list[User]:
    """Who could decide about this request now."""
    others = people_who_may_decide(approval.action).exclude(pk=approval.requested_by_id or 0).order_by("pk")
    if approval.action in RULES and RULES[approval.action].is_of_customer:
        others = others.filter(access.people_who_see(approval.company))
    return [user for user in others if not _veto(approval, user)]


def visible_to(user: User, queryset: QuerySet[Approval] | None = None) -> QuerySet[Approval]:
    """The requests that this person may know of: about what they see, and their own."""
    requests = Approval.objects.all() if queryset is None else queryset
    others = [action for action, rule in RULES.items() if not rule.is_of_customer and user.has_perm(rule.permission)]
    return access.visible_approvals(user, requests, others)


def sees_what_it_is_about(user: User, approval: Approval) -> bool:
    """Whether this person sees the customer now; of many customers, whether they see all there are."""
    if approval.action in RULES and not RULES[approval.action].is_of_customer:
        return True
    return access.sees_all(user) if approval.company is None else access.can_see(user, approval.company)


def waiting_for(user: User) -> QuerySet[Approval]:
    """The requests that this person may decide."""
    if not user.has_perm(DECIDE):
        return Approval.objects.none()
    mine = [action for action, rule in RULES.items() if user.has_perm(rule.permission)]
    waiting = (
        visible_to(user)
        .filter(state=ApprovalState.REQUESTED, action__in=mine, expires_at__gt=timezone.now())
        .exclude(requested_by=user)
    )
    about_people = Q(action__in=[name for name, rule in RULES.items() if rule.model is User])
    waiting = waiting.exclude(about_people & Q(target_pk=user.pk))
    if user.is_superuser:
        return waiting
    # As the veto has it: only a superuser decides about superusers.
    superusers = User.objects.filter(is_superuser=True).values("pk")
    return waiting.exclude(about_people & Q(target_pk__in=superusers)).exclude(
        action=CHANGE_ROLES, payload__data__is_superuser=True
    )


def why_not_decide(approval: Approval, user: User | None) -> Text:
    """Why `user` cannot decide about this request, or nothing."""
    if approval.state != ApprovalState.REQUESTED:
        return _settled(approval)
    if user is None or not user.has_perm(DECIDE):
        return _("You may not decide about requests.")
    if approval.requested_by_id == user.pk:
        return _("You asked for this yourself: a colleague has to decide.")
    if approval.action not in RULES or not user.has_perm(_permission(approval.action)):
        return _("You may not do this yourself, so you cannot approve it either.")
    if not sees_what_it_is_about(user, approval):
        return _("This is about customers that you do not see: a colleague who sees them has to decide.")
    return _veto(approval, user)


def why_not_withdraw(approval: Approval, user: User | None) -> Text:
    """Why `user` cannot take this request back, or nothing."""
    if approval.state != ApprovalState.REQUESTED:
        return _settled(approval)
    if user is None or approval.requested_by_id != user.pk:
        return _("Only %s can withdraw it.") % approval.requested_by_name
    return ""


def _settled(approval: Approval) -> Text:
    words = {"state": approval.state_meaning.label, "who": approval.decided_by_name}
    if approval.decided_by_name:
        return _("This request is settled already: %(state)s, by %(who)s.") % words
    return _("This request is settled already: %(state)s.") % words


def _permission(action: str) -> str:
    return RULES[action].permission


def _veto(approval: Approval, user: User) -> Text:
    if approval.target_pk is None:
        return ""
    target = target_of(approval)
    return RULES[approval.action].veto(user, target, approval.payload["data"]) if target is not None else ""


# --- Deciding --------------------------------------------------------------------------------------------------------
def approve(approval: Approval, *, actor: Actor, comment: str = "") -> Approval:
    """Approve and carry out what was frozen. The request as it stands afterwards: done, approved (many rows, which the
    queue works through), failed (refused by a service, or what it was judged on has changed) or expired; `outcome` says
    what became of it. Raises Refused when this person may not decide, or somebody has decided already.
    """
    with _deciding(approval, actor, comment) as held:
        if held.is_overdue(timezone.now()):
            _finish(held, ApprovalState.EXPIRED, _expired_words())
        elif why := _cannot_run(held):
            _note_decision(held, actor, comment)
            _finish(held, ApprovalState.FAILED, why)
        else:
            _note_decision(held, actor, comment)
            _move(held, ApprovalState.APPROVED)
            if RULES[held.action].is_many:
                queue.enqueue(queue.RUN_APPROVAL, held.pk)
            else:
                _carry_out(held)
        if held.finished_at is not None:
            _tell_requester(held)
    return held


def refuse(approval: Approval, *, actor: Actor, comment: str) -> Approval:
    """Say no, and why. Raises Refused without a comment, or when this person may not decide."""
    if not comment.strip():
        raise Refused(_("Say why: %s reads it.") % approval.requested_by_name)
    with _deciding(approval, actor, comment) as held:
        _note_decision(held, actor, comment)
        _finish(held, ApprovalState.REFUSED, _("Refused: %s") % comment.strip())
        _tell_requester(held)
    return held


def withdraw(approval: Approval, *, actor: Actor) -> Approval:
    """Take one's own request back. Raises Refused when it is somebody else's, or settled."""
    with audit.acting(actor), transaction.atomic():
        held = _locked(approval.pk)
        if why := why_not_withdraw(held, actor.user):
            raise Refused(str(why))
        with recorded():
            _finish(held, ApprovalState.WITHDRAWN, _("Withdrawn by %s.") % actor.name)
    return held


@contextmanager
def _deciding(approval: Approval, actor: Actor, comment: str) -> Iterator[Approval]:
    with audit.acting(replace(actor, reason=comment.strip() or actor.reason)), transaction.atomic():
        held = _locked(approval.pk)
        if why := why_not_decide(held, actor.user):
            raise Refused(str(why))
        # What became of it is for everybody who reads the request, not only for whoever decides.
        with recorded():
            yield held


def _locked(pk: int) -> Approval:
    held = Approval.objects.select_for_update(of=("self",)).select_related("requested_by", "decided_by").get(pk=pk)
    if held.company_id is not None:
        # Readings are written under this lock: nothing changes between the comparison and the call.
        Company.objects.select_for_update().filter(pk=held.company_id).first()
    return held


def _note_decision(approval: Approval, actor: Actor, comment: str) -> None:
    approval.decided_by = actor.user
    approval.decided_by_name = actor.name
    approval.decided_at = timezone.now()
    approval.comment = comment.strip()


def _move(approval: Approval, state: ApprovalState) -> None:
    approval.move_to(state)
    approval.save()


def _finish(approval: Approval, state: ApprovalState, outcome: str) -> None:
    approval.outcome = outcome
    approval.finished_at = timezone.now()
    _move(approval, state)


# --- Carrying out ----------------------------------------------------------------------------------------------------
def target_of(approval: Approval) -> Model | None:
    """The object it is about; None when it is gone, or when there are many."""
    if approval.target_pk is None or approval.action not in RULES:
        return None
    return RULES[approval.action].model._default_manager.filter(pk=approval.target_pk).first()


def _cannot_run(approval: Approval) -> str:
    """Why what was frozen cannot run any more, or nothing."""
    asker = approval.requested_by
    if asker is None or not _may_do(asker, approval):
        return _("%s may no longer do this. Nothing was done.") % approval.requested_by_name
    if approval.company is not None and not sees_what_it_is_about(asker, approval):
        return _("%s no longer sees this customer. Nothing was done.") % approval.requested_by_name
    if RULES[approval.action].is_many:
        return ""  # each row is looked at when its turn comes
    target = target_of(approval)
    if target is None:
        return _("%s no longer exists. Nothing was done.") % approval.target_name
    changes = [f"{it.label}: {it.then} → {it.now}" for it in compared(approval) if it.differs]
    if changes:
        text = _("Changed since it was asked: %s. Nothing was done; if it is still wanted, ask anew.")
        return text % "; ".join(changes)
    return ""


def _may_do(asker: User, approval: Approval) -> bool:
    return asker.is_active and asker.is_staff and asker.has_perm(_permission(approval.action))


def _carry_out(approval: Approval) -> None:
    try:
        with transaction.atomic():
            outcome = RULES[approval.action].run(target_of(approval), approval.payload["data"], _executor(approval))
    except (Refused, CodatError) as error:
        _finish(approval, ApprovalState.FAILED, _why(error))
        return
    if isinstance(outcome, Operation):
        approval.operation = outcome
        outcome = _("Asked of Codat: %s.") % outcome
    if approval.company_id is not None and not Company.objects.filter(pk=approval.company_id).exists():
        approval.company = None  # it was what had to go
    _finish(approval, ApprovalState.DONE, outcome)


def _executor(approval: Approval) -> Actor:
    """Whoever asked, with both names in the reason."""
    reason = _("%(reason)s (asked by %(asker)s, approved by %(decider)s)") % {
        "reason": approval.reason,
        "asker": approval.requested_by_name,
        "decider": approval.decided_by_name,
    }
    return Actor(
        name=approval.requested_by_name,
        source=f"approved request #{approval.pk}",
        user=approval.requested_by,
        reason=reason,
    )


def run_many(approval_pk: int) -> str:
    """Work through the rows of an approved request; a short report for the queue's log. Safe to run any number of
    times, and twice at once: each row is done in one transaction with the count of rows done.
    """
    deadline = time.monotonic() + BUDGET
    while _next_row(approval_pk):
        if time.monotonic() > deadline:
            queue.enqueue(queue.RUN_APPROVAL, approval_pk)
            return "to be continued"
    return "finished"


def _next_row(approval_pk: int) -> bool:
    """Do one row; False when there is none left."""
    with transaction.atomic():
        approval = _locked(approval_pk)
        if approval.state != ApprovalState.APPROVED:
            return False
        rows = approval.payload["rows"]
        if approval.rows_done < len(rows):
            pk, name, mark = rows[approval.rows_done]
            if why := _do_row(approval, pk, mark):
                approval.refusals = [*approval.refusals, [name, why]]
            approval.rows_done += 1
            approval.save(update_fields=["rows_done", "refusals", "updated_at"])
            return True
        with audit.acting(_executor(approval)):
            _finish(approval, ApprovalState.DONE, _rows_in_words(approval))
            _tell_requester(approval)
        return False


def _do_row(approval: Approval, pk: int, mark: str) -> str:
    """Carry out one row; why it was refused, or nothing."""
    rule = RULES[approval.action]
    target = rule.model._default_manager.filter(pk=pk).first()
    if target is None:
        return _("It no longer exists.")
    # Asked anew for each: many rows take a while, and a task that was lost goes on much later.
    asker = approval.requested_by
    if asker is None or not _may_do(asker, approval):
        return _("%s may no longer do this.") % approval.requested_by_name
    company = company_of(target)
    if company is not None and not access.companies_of(_executor(approval)).filter(pk=company.pk).exists():
        return _("%s no longer sees this customer.") % approval.requested_by_name
    if fingerprint(approval.action, target) != mark:
        return _("Changed since it was asked.")
    try:
        with transaction.atomic(), audit.acting(_executor(approval)):
            rule.run(target, {}, _executor(approval))
    except (Refused, CodatError) as error:
        return _why(error)
    except Exception:
        # A bug of ours in one row must not stop the others, nor be tried for ever.
        log.exception("approved_row_errored", approval=approval.pk, row=pk)
        return _("This system met a fault of its own; an administrator finds it in the log.")
    return ""


def _rows_in_words(approval: Approval) -> str:
    refused = approval.refusals
    done = approval.rows_done - len(refused)
    total = ngettext("%(count)d done", "%(count)d done", done) % {"count": done}
    if not refused:
        return f"{total}."
    named = "; ".join(f"{name}: {retold(why)}" for name, why in refused[:NAMED])
    words = {"done": total, "count": len(refused), "why": named}
    text = _("%(done)s, %(count)d refused: %(why)s") % words
    return text if len(refused) <= NAMED else _("%(text)s and %(count)d more") % {
        "text": text, "count": len(refused) - NAMED
    }  # fmt: skip


def _why(error: Refused | CodatError) -> str:
    return error.staff_message if isinstance(error, CodatError) else str(error)


# --- What a clock does -----------------------------------------------------------------------------------------------
def tend() -> int:
    """End the requests that nobody decided in time, and start again what lost its task; how many requests."""
    now = timezone.now()
    overdue = Q(state=ApprovalState.REQUESTED, expires_at__lte=now)
    due = list(Approval.objects.filter(overdue, finished_at__isnull=True).values_list("pk", flat=True)[:500])
    for pk in due:
        with transaction.atomic():
            _expire(pk)
    stalled = Approval.objects.filter(
        state=ApprovalState.APPROVED, finished_at__isnull=True, updated_at__lte=now - STALLED
    )
    lost = list(stalled.values_list("pk", flat=True)[:500])
    for pk in lost:
        queue.enqueue(queue.RUN_APPROVAL, pk)
    return len(due) + len(lost)


def _expire(pk: int) -> None:
    held = _locked(pk)
    if held.is_overdue(timezone.now()):
        with recorded():
            _finish(held, ApprovalState.EXPIRED, _expired_words())
        _tell_requester(held)


def _expired_words() -> str:
    return _("Nobody decided in time. Nothing was done; if it is still wanted, ask anew.")


# --- In words --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Compared:
    """One thing a decision is judged on: as it was when it was asked, and as it is."""

    label: Text
    then: str
    now: str
    differs: bool
    """Whether it has changed: two states may be called the same."""


def label_of(approval: Approval) -> Text:
    """What is asked for, in words."""
    return RULES[approval.action].label if approval.action in RULES else approval.action


def object_in_words(approval: Approval) -> str:
    """What it is about; how many rows, in the reader's language."""
    return approval.target_name if approval.target_pk is not None else retold(approval.target_name)


def compared(approval: Approval) -> list[Compared]:
    """What the request was judged on, then and now."""
    target = target_of(approval)
    now: State = RULES[approval.action].state(target) if target is not None else {}
    return [_compared(approval, name, then, now) for name, then in approval.judged_on.items()]


def _compared(approval: Approval, name: str, then: Any, now: State) -> Compared:
    label, words = LABELS.get(name, name), _said(approval, name, then)
    if name not in now:
        return Compared(label, words, _("gone"), differs=True)
    return Compared(label, words, _said(approval, name, now[name]), differs=then != now[name])


def compared_for(user: User, approval: Approval) -> list[Compared]:
    """As `compared`; nothing for whoever asked and no longer sees the customer: how it stands now is not theirs."""
    return compared(approval) if sees_what_it_is_about(user, approval) else []


def outcome_in_words(approval: Approval) -> str:
    """What became of it, in the reader's language."""
    if approval.state == ApprovalState.DONE and "rows" in approval.payload:
        return _rows_in_words(approval)
    return retold(approval.outcome)


def payload_in_words(approval: Approval) -> list[tuple[Text, str]]:
    """The frozen fields, labelled."""
    data = approval.payload.get("data", {})
    return [(LABELS.get(name, name), _said(approval, name, value)) for name, value in data.items()]


def _said(approval: Approval, name: str, value: Any) -> str:
    rule = RULES.get(approval.action)
    meanings = MEANINGS.get((rule.model, name)) if rule is not None else None
    if meanings is not None:
        return str(describe(meanings, value).label)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if name == "groups":
        return ", ".join(Group.objects.filter(pk__in=value).order_by("name").values_list("name", flat=True)) or _(
            "none"
        )
    return retold(str(value)) if value not in ("", None) else _("none")


# --- Telling ---------------------------------------------------------------------------------------------------------
def _tell_approvers(approval: Approval) -> None:
    to = [user.email for user in deciders_of(approval) if user.email]
    subject = gettext_lazy("Your approval is asked for: %(what)s, %(object)s")
    _mail(MailKind.APPROVAL_ASKED, approval, to, subject, "asked")


def _tell_requester(approval: Approval) -> None:
    asker = approval.requested_by
    to = [asker.email] if asker is not None and asker.is_active and asker.email else []
    subject = gettext_lazy("%(state)s: %(what)s, %(object)s")
    _mail(MailKind.APPROVAL_DECIDED, approval, to, subject, "decided")


def _mail(kind: MailKind, approval: Approval, to: Sequence[str], subject: Text, key: str) -> None:
    def in_their_language() -> str:
        words = {"what": label_of(approval), "object": object_in_words(approval), "state": approval.state_meaning.label}
        return str(subject) % words

    outbox.put(
        kind,
        to=to,
        subject=in_their_language,
        context={"approval": approval, "what": label_of(approval), "url": outbox.page_of(approval)},
        # What was approved may be that it is deleted.
        company=Company.objects.filter(approvals=approval).first(),
        key=f"approval {approval.pk} {key}",
    )
    if to:
        queue.enqueue(queue.SEND_MAILS)


# --- Is anybody there? -----------------------------------------------------------------------------------------------
def role_changes_are_stuck() -> bool:
    """Whether role changes wait for a second person and there are not two: nobody could ever be given a role."""
    return is_needed(CHANGE_ROLES) and people_who_may_decide(CHANGE_ROLES).count() < 2


def may_still_decide(approval: Approval, at: datetime | None = None) -> bool:
    """Whether there is time left and anybody who could use it."""
    return not approval.is_overdue(at or timezone.now()) and bool(deciders_of(approval))
