// What the console's pages do beyond HTML: countdowns, forms that send themselves, the typed confirmation.
// Every page works without it, but for the handoff's one more click.
"use strict";
const pad = (n) => String(n).padStart(2, "0");
for (const time of document.querySelectorAll("time[data-end]")) {
  const end = Number(time.dataset.end);
  const tick = () => {
    const left = Math.max(0, Math.ceil((end - Date.now()) / 1000));
    time.textContent = left ? `${Math.floor(left / 60)}:${pad(left % 60)} left` : "over";
    if (!left) clearInterval(timer);
  };
  const timer = setInterval(tick, 1000);
  tick();
}
for (const time of document.querySelectorAll("time[datetime]:not([data-end])")) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.getTime())) time.title = at.toLocaleString();
}
for (const input of document.querySelectorAll("input[data-must-be]")) {
  const button = input.form.querySelector("button[type=submit]");
  const look = () => { button.disabled = input.value.trim().toLowerCase() !== input.dataset.mustBe; };
  input.addEventListener("input", look);
  look();
}
// An address that says only what was filled in can be read and shared.
for (const form of document.querySelectorAll("form[data-skip-empty]")) {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
}
// A form that changes something goes only while the server answers: else the browser's own error page would take what
// was written. Asked twice, for the connection it kept may be the one that broke.
const answers = () => fetch("/healthz", { cache: "no-store" }).then((answer) => answer.ok, () => false);
let sending = false;
addEventListener("submit", async (event) => {
  const form = event.target;
  if (sending || event.defaultPrevented || form.method !== "post") return;
  event.preventDefault();
  event.stopPropagation();
  const button = event.submitter;
  if (await answers() || await answers()) {
    sending = true;
    form.requestSubmit(button);
    sending = false;
    return;
  }
  const said = document.createElement("p");
  said.className = "notice bad";
  said.setAttribute("role", "alert");
  said.textContent = "The server cannot be reached. Nothing was sent, and what you wrote is still here: try again in a moment.";
  document.querySelector("main > .notice.bad[role=alert]")?.remove();
  document.querySelector("main").prepend(said);
  said.scrollIntoView({ block: "nearest" });
}, true);
addEventListener("pageshow", (event) => {
  // Back to a page of the cache: its forms and lists may be of another session.
  if (event.persisted) location.reload();
});
// A request that waits for a colleague: shown anew once it waits no more.
if (document.querySelector("[data-waits]")) {
  setInterval(async () => {
    const answer = await fetch(location.href).catch(() => null);
    if (answer && !(await answer.text()).includes("data-waits")) location.reload();
  }, 2000);
}
document.querySelector("form[data-send-at-once]")?.submit();
const go = document.querySelector("a[data-go-at-once]");
if (go) location.replace(go.href);
