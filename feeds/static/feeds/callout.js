/*
 * Fields marked data-callout-limit: count their text as the Portal does (UTF-16 units after NFC), and show it in the
 * preview ("preview-<name>") while it is typed. Without this file the page says both after saving.
 */
"use strict";
{
  const counted = (field) => field.value.normalize("NFC").trim();

  const makeCounter = (field) => {
    const counter = document.createElement("span");
    counter.className = "callout-counter";
    counter.id = `${field.id}_counter`;
    const warning = document.createElement("strong");
    // Said when a limit is crossed, not at every key.
    warning.setAttribute("role", "status");
    const line = document.createElement("p");
    line.className = "callout-count";
    line.append(counter, " ", warning);
    (field.closest(".flex-container") ?? field).insertAdjacentElement("afterend", line);
    field.setAttribute("aria-describedby", `${field.getAttribute("aria-describedby") ?? ""} ${counter.id}`.trim());
    return { counter, warning };
  };

  const preview = (field, text) => {
    const shown = document.getElementById(`preview-${field.name}`);
    if (!shown) return;
    shown.textContent = text;
    shown.hidden = !text;
    const box = shown.closest("[data-callout-box]");
    box.hidden = [...box.children].every((part) => part.hidden);
    box.parentElement.querySelector("[data-callout-none]").hidden = !box.hidden;
  };

  const watch = (field) => {
    const limit = Number(field.dataset.calloutLimit);
    const { counter, warning } = makeCounter(field);
    const show = () => {
      const text = counted(field);
      const over = text.length - limit;
      counter.textContent = field.dataset.counted.replace("{count}", text.length).replace("{limit}", limit);
      counter.classList.toggle("is-over", over > 0);
      const said = over > 0 ? field.dataset.over.replace("{over}", over) : "";
      if (warning.textContent !== said) warning.textContent = said;
      preview(field, text);
    };
    field.addEventListener("input", show);
    show();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-callout-limit]").forEach(watch);
  });
}
