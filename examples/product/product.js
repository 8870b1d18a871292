// Sends the form that carries a code on, so that nobody has to click in between.
"use strict";
document.querySelector("form[data-send-at-once]")?.submit();
// A page that comes back from the history may be of an impersonation that is over.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
