/*
 * Warns before the session ends, so that nobody loses what they typed.
 *
 * Asking the server does not keep the session alive (another window may have); the button does.
 */
"use strict";
{
  const MARGIN_MS = 1000;

  const start = (warning) => {
    const before = Number(warning.dataset.warnBefore);
    const button = warning.querySelector("button");
    const text = warning.querySelector("[data-session-text]");
    let timer;

    const show = (words) => {
      text.textContent = words;
      warning.hidden = false;
    };
    const plan = (secondsLeft) => {
      clearTimeout(timer);
      warning.hidden = true;
      timer = setTimeout(look, Math.max(0, (secondsLeft - before) * 1000) + MARGIN_MS);
    };
    const ended = () => {
      button.hidden = true;
      show(warning.dataset.ended);
    };
    const ask = async (options = {}) => {
      const reply = await fetch(warning.dataset.url, { headers: { "X-Requested-With": "fetch" }, ...options });
      if (reply.redirected || !reply.ok) return 0;
      return (await reply.json()).seconds_left;
    };
    const look = async () => {
      try {
        const left = await ask();
        if (!left) ended();
        else if (left > before) plan(left);
        else {
          show(warning.dataset.ending);
          timer = setTimeout(look, left * 1000 + MARGIN_MS);
        }
      } catch {
        timer = setTimeout(look, 30000); // no network: the next answer decides
      }
    };

    button.addEventListener("click", async () => {
      const token = warning.querySelector("[name=csrfmiddlewaretoken]").value;
      const headers = { "X-CSRFToken": token, "X-Requested-With": "fetch" };
      try {
        const left = await ask({ method: "POST", headers });
        if (left > before) plan(left);
        else if (left) show(warning.dataset.atMost);
        else ended();
      } catch {
        show(warning.dataset.lost);
      }
    });
    plan(Number(warning.dataset.secondsLeft));
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-seconds-left]").forEach(start);
  });
}
