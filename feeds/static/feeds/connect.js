"use strict";
// The customer's page. Everything works without this file; with it,
// - data-opened: told once that a person looks at the page (a scanner that fetches it neither scrolls, points nor types);
// - data-refresh: the accounts are fetched again every so many milliseconds, while the page is in sight and its link
//   opens it;
// - data-again: after so many milliseconds the button is pressed again, for who is asked for a moment;
// - the button is not pressed twice by accident.
const script = document.currentScript;
const token = document.querySelector("input[name=csrfmiddlewaretoken]");

if (script.dataset.opened && token) {
    const gestures = ["pointermove", "pointerdown", "keydown", "scroll", "touchstart"];
    const tell = () => {
        gestures.forEach((name) => removeEventListener(name, tell));
        fetch(script.dataset.opened, {
            method: "POST",
            headers: { "X-CSRFToken": token.value },
            referrerPolicy: "same-origin",
        }).catch(() => {});
    };
    gestures.forEach((name) => addEventListener(name, tell, { passive: true }));
}

const refresh = Number(script.dataset.refresh);
if (refresh) {
    const timer = setInterval(async () => {
        if (document.hidden) {
            return;
        }
        const answer = await fetch(location.href).catch(() => null);
        if (answer && answer.status === 404) {
            // The link has ended: the page that says so also says what to do, and asks no more.
            clearInterval(timer);
            location.reload();
            return;
        }
        if (answer && answer.status === 429) {
            clearInterval(timer);
            return;
        }
        if (!answer || !answer.ok) {
            return;
        }
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!fresh.querySelector("form")) {
            location.reload(); // nothing is left to press: the page says something else now
            return;
        }
        const held = document.getElementById("progress");
        const now = fresh.getElementById("progress");
        if (held && now && held.textContent !== now.textContent) {
            held.innerHTML = now.innerHTML;
        }
    }, refresh);
}

const again = Number(script.dataset.again);
if (again) {
    setTimeout(() => {
        // Who comes back from Codat's page finds the button, not a page that takes them there again.
        const page = new URL(location.href);
        page.searchParams.delete("told");
        history.replaceState(null, "", page);
        document.querySelector("form").requestSubmit();
    }, again);
}

for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", (event) => {
        const button = form.querySelector("button");
        if (button.getAttribute("aria-disabled") === "true") {
            event.preventDefault();
        }
        button.setAttribute("aria-disabled", "true");
        setTimeout(() => button.removeAttribute("aria-disabled"), 8000);
    });
}
// Coming back with the Back button shows the page as it was left: free the button.
addEventListener("pageshow", () => {
    document.querySelectorAll("button[aria-disabled]").forEach((button) => button.removeAttribute("aria-disabled"));
});
