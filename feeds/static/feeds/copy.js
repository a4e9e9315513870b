"use strict";
// Buttons with data-copy="<id of an input>": copy its value and say so, also to screen readers.
for (const button of document.querySelectorAll("button[data-copy]")) {
    const input = document.getElementById(button.dataset.copy);
    const status = document.querySelector(`[data-copy-status="${button.dataset.copy}"]`);
    button.addEventListener("click", async () => {
        try {
            await navigator.clipboard.writeText(input.value);
            status.textContent = button.dataset.copied;
        } catch {
            // The clipboard is closed to pages served over plain HTTP: leave the value selected.
            input.select();
            status.textContent = button.dataset.failed;
        }
    });
}
