"""The bench of the inbox in small: real gunicorn, real worker, real stand-in."""

from __future__ import annotations

import pytest

from tests.bench import webhooks


@pytest.mark.worker
@pytest.mark.postgres
def test_five_hundred_webhooks_with_duplicates_disorder_and_forgeries_end_in_the_stand_ins_state() -> None:
    figures = webhooks.run(500)
    assert figures["well"], figures
    assert figures["duplicates"] > 100
    assert figures["forged"] == figures["counted_bad_signatures"] == 5
    assert figures["readings"] < figures["unique"]  # one reading answers several
