/*
 * Keeps a panel marked data-progress-url up to date while the server says that something may still change.
 *
 * The server renders the panel; its first element says in data-live after how many milliseconds to fetch it again.
 * Without data-live this file stops. What changed is announced once, in the panel's status line
 * (data-progress-status), not by re-reading it all; that line is seen only when something is wrong.
 */
"use strict";
{
  const LONGEST_WAIT_MS = 30000;

  const fragmentOf = (panel) => panel.firstElementChild;
  const interval = (panel) => Number(fragmentOf(panel).dataset.live ?? 0);

  const replace = (panel, html) => {
    // A keyboard user's place is kept: the same control is focused again if it still exists.
    const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
    panel.innerHTML = html;
    if (focused) document.getElementById(focused)?.focus();
  };

  const announce = (status, text, { isTrouble = false } = {}) => {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("visually-hidden", !isTrouble);
    status.classList.toggle("problem", isTrouble);
  };

  const watch = (panel) => {
    const status = document.getElementById(panel.dataset.progressStatus);
    let shown = "";
    let failures = 0;

    const next = () => {
      const wait = interval(panel);
      if (wait) setTimeout(refresh, Math.min(wait * 2 ** failures, Math.max(wait, LONGEST_WAIT_MS)));
    };
    const refresh = async () => {
      if (document.hidden) {
        document.addEventListener("visibilitychange", refresh, { once: true });
        return;
      }
      try {
        const reply = await fetch(panel.dataset.progressUrl, { headers: { "X-Requested-With": "fetch" } });
        // Signed out meanwhile: the reply is the sign-in page, or a refusal. Asking again would change nothing.
        if (reply.redirected || (reply.status >= 400 && reply.status < 500)) {
          announce(status, panel.dataset.progressEnded, { isTrouble: true });
          return;
        }
        if (!reply.ok) throw new Error(String(reply.status));
        const html = await reply.text();
        if (html !== shown) replace(panel, html);
        shown = html;
        announce(status, fragmentOf(panel).dataset.summary);
        failures = 0;
      } catch {
        announce(status, panel.dataset.progressLost, { isTrouble: true });
        failures += 1;
      }
      next();
    };

    next();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-progress-url]").forEach(watch);
  });
}
