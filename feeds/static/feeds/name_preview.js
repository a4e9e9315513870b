/*
 * Beside a field marked data-name-preview-url, shows the name Codat will store, while it is typed.
 * The words come from the server; this file only carries them. Without it the page says the same after saving.
 */
"use strict";
{
  const DELAY_MS = 300;

  const watch = (field) => {
    const output = document.createElement("output");
    output.className = "name-preview";
    output.setAttribute("for", field.id);
    output.setAttribute("aria-live", "polite");
    (field.closest(".flex-container") ?? field).insertAdjacentElement("afterend", output);

    let timer;
    let pending;
    const ask = async () => {
      pending?.abort();
      const typed = field.value.trim();
      if (!typed) {
        output.textContent = "";
        return;
      }
      pending = new AbortController();
      const body = new URLSearchParams({ legal_name: typed });
      try {
        const reply = await fetch(field.dataset.namePreviewUrl, {
          method: "POST",
          body,
          headers: { "X-CSRFToken": field.form.elements.csrfmiddlewaretoken.value },
          signal: pending.signal,
        });
        const answer = reply.ok ? await reply.json() : { message: "", tone: "" };
        output.textContent = answer.message;
        output.dataset.tone = answer.tone;
      } catch (error) {
        if (error.name !== "AbortError") output.textContent = "";
      }
    };
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, DELAY_MS);
    });
    ask();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-name-preview-url]").forEach(watch);
  });
}
