"use strict";
// Elements with data-expires="<ISO time>": count down to it as m:ss, then say data-expired and empty the input named by data-clears.
for (const timer of document.querySelectorAll("[data-expires]")) {
    const end = Date.parse(timer.dataset.expires);
    const tick = () => {
        const seconds = Math.max(0, Math.ceil((end - Date.now()) / 1000));
        if (seconds > 0) {
            timer.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
            return;
        }
        clearInterval(handle);
        timer.textContent = timer.dataset.expired;
        const stale = document.getElementById(timer.dataset.clears);
        if (stale) {
            stale.value = "";
        }
    };
    const handle = setInterval(tick, 1000);
    tick();
}
