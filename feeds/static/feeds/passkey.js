/* Says in words when a passkey was not used; without this the reason would only be in the browser's console. */
"use strict";
document.addEventListener("allauth.error", (event) => {
  event.preventDefault();
  const problem = document.getElementById("passkey-problem");
  problem.textContent = problem.dataset.text;
  problem.hidden = false;
});
