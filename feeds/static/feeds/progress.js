/*
 * Keeps a panel marked data-progress-url up to date while the server says that something is under way.
 *
 * The server renders the panel; this file fetches it again until its first element no longer carries data-live, then
 * stops. What changed is announced once, in the panel's status line (data-progress-status), not by re-reading it all.
 */
"use strict";
{
  const INTERVAL_MS = 1500;
  const MAX_INTERVAL_MS = 15000;

  const fragmentOf = (panel) => panel.firstElementChild;
  const isLive = (panel) => fragmentOf(panel).hasAttribute("data-live");

  const replace = (panel, html) => {
    if (panel.dataset.shown === html) return;
    panel.dataset.shown = html;
    // A keyboard user's place is kept: the same control is focused again if it still exists.
    const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
    panel.innerHTML = html;
    if (focused) document.getElementById(focused)?.focus();
  };

  const announce = (status, text) => {
    if (status.textContent !== text) status.textContent = text;
  };

  const watch = (panel) => {
    const status = document.getElementById(panel.dataset.progressStatus);
    let wait = INTERVAL_MS;

    const next = () => setTimeout(refresh, wait);
    const refresh = async () => {
      if (document.hidden) {
        document.addEventListener("visibilitychange", refresh, { once: true });
        return;
      }
      try {
        const reply = await fetch(panel.dataset.progressUrl, { headers: { "X-Requested-With": "fetch" } });
        // Signed out meanwhile: the reply is the sign-in page, or a refusal. Asking again would change nothing.
        if (reply.redirected || (reply.status >= 400 && reply.status < 500)) {
          announce(status, panel.dataset.progressEnded);
          return;
        }
        if (!reply.ok) throw new Error(String(reply.status));
        replace(panel, (await reply.text()).trim());
        announce(status, fragmentOf(panel).dataset.summary);
        wait = INTERVAL_MS;
      } catch {
        announce(status, panel.dataset.progressLost);
        wait = Math.min(wait * 2, MAX_INTERVAL_MS);
      }
      if (isLive(panel)) next();
    };

    if (isLive(panel)) next();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-progress-url]").forEach(watch);
  });
}
