/* <stagedoor-banner>: says that somebody acts as somebody else, until when, and stops it.
 *
 * Attributes
 *   src       an endpoint of the product, same origin, that answers
 *             {"impersonated": true, "user": "…", "actor": "…", "expires_in": 599.5, "expires_at": 1795334585000}
 *             or {"impersonated": false}; asked again when the page comes back to the front. expires_in, seconds left,
 *             counts before expires_at, milliseconds, which is right only where this browser's clock is.
 *             A 401 or 403 says that it is over, any other status nothing
 *   token     instead of src: an actor token that the page holds anyway (only read, never sent)
 *   poll      how often src is asked, seconds (default: 2), so that a stop elsewhere shows here
 *   stop      where Stop posts to, same origin; without it the button is left out
 *   home      where the person goes when it is over (default: /)
 *   lang      de or en (default: the document's)
 *
 * Events, on the element and bubbling: stagedoor-start, stagedoor-warning, stagedoor-end {detail: {why}}.
 * The document element carries data-impersonated="true" meanwhile, so that a product can recolour itself.
 */
(() => {
  "use strict";
  const TEXTS = {
    en: { acting: "You are acting as", by: "you are", stop: "Stop", left: "ends in", warn: "Less than a minute left.",
          over: "The impersonation is over.", failed: "Stop did not work. Try again.", back: "Go back" },
    de: { acting: "Sie handeln als", by: "Sie sind", stop: "Beenden", left: "endet in", warn: "Weniger als eine Minute.",
          over: "Die Vertretung ist beendet.", failed: "Beenden ging nicht. Bitte erneut versuchen.", back: "Zurück" },
  };
  const CSS = `:host{all:initial!important;display:block!important;position:sticky!important;top:0!important;
z-index:2147483647!important;visibility:visible!important;opacity:1!important;transform:none!important;
clip-path:none!important;pointer-events:auto!important;height:auto!important;width:auto!important;
max-height:none!important;font:16px/1.4 system-ui,sans-serif!important}
:host([data-state=off]){display:none!important}
div{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:center;padding:.5rem 1rem;background:#7a1f00;color:#fff;
border-bottom:3px solid #ffb38a}
div.warn{background:#b00020}p{margin:0;flex:1 1 16rem;overflow-wrap:anywhere}bdi{font-weight:700}
time{font-variant-numeric:tabular-nums;white-space:nowrap}
button,a{font:inherit;font-weight:700;color:#7a1f00;background:#fff;border:2px solid #fff;border-radius:.3rem;
padding:.2rem .9rem;cursor:pointer;text-decoration:none}
button:focus-visible,a:focus-visible{outline:3px solid #ffd9c4;outline-offset:2px}button:disabled{opacity:.6}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media (forced-colors:active){div{border:2px solid}}@media print{:host{position:static!important}}`;
  const cut = (text) => {
    const plain = String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f]/g, " ");
    const letters = Array.from(plain);
    return letters.length > 80 ? letters.slice(0, 79).join("") + "…" : plain;
  };
  const claims = (token) => {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (c) => c.charCodeAt(0));
    const c = JSON.parse(new TextDecoder().decode(bytes));
    return { impersonated: !!c.act, user: c.sub, actor: c.act && c.act.sub, expires_at: c.exp * 1000 };
  };

  class StagedoorBanner extends HTMLElement {
    static observedAttributes = ["src", "token"];
    #root = this.attachShadow({ mode: "open" });
    #state = null;
    #timer = 0;
    #warned = false;
    #asked = 0;
    #over = false;
    #ends = 0; // on the clock that nobody sets
    #parts = {};

    connectedCallback() {
      const lang = (this.getAttribute("lang") || document.documentElement.lang || "en").slice(0, 2);
      this.t = TEXTS[lang] || TEXTS.en;
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(CSS);
      this.#root.adoptedStyleSheets = [sheet];
      const make = (name, props = {}, ...children) => {
        const element = Object.assign(document.createElement(name), props);
        element.append(...children);
        return element;
      };
      const user = make("bdi"), actor = make("bdi"), time = make("time");
      const stop = make("button", { type: "button", textContent: this.t.stop });
      const live = make("span", { className: "sr" });
      live.setAttribute("role", "status");
      stop.addEventListener("click", () => this.stop());
      const box = make("div", {}, make("p", {}, `${this.t.acting} `, user, ` (${this.t.by} `, actor, ")"), time);
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", this.t.acting);
      if (this.hasAttribute("stop")) box.append(stop);
      this.#root.replaceChildren(box, live);
      this.#parts = { box, user, actor, time, stop, live };
      this.dataset.state = "off";
      this.#over = this.#warned = false;
      this.look = () => document.visibilityState === "visible" && this.refresh();
      document.addEventListener("visibilitychange", this.look);
      addEventListener("pageshow", this.look);
      this.refresh();
    }

    disconnectedCallback() {
      clearInterval(this.#timer);
      document.removeEventListener("visibilitychange", this.look);
      removeEventListener("pageshow", this.look);
      delete document.documentElement.dataset.impersonated;
    }

    attributeChangedCallback() {
      if (this.#parts.box) this.refresh();
    }

    /** Asks again who acts as whom. */
    async refresh() {
      this.#asked = performance.now();
      try {
        if (this.hasAttribute("token")) return this.#show(claims(this.getAttribute("token")));
        if (!this.hasAttribute("src")) return;
        const answer = await fetch(this.getAttribute("src"), { credentials: "same-origin", cache: "no-store" });
        if (answer.status === 401 || answer.status === 403) return this.#show({ impersonated: false });
        if (answer.ok) this.#show(await answer.json());
      } catch {
        /* unreachable: what was shown stays, and the countdown goes on */
      }
    }

    /** Ends the impersonation. */
    async stop() {
      const { stop, live } = this.#parts;
      stop.disabled = true;
      try {
        const answer = await fetch(this.getAttribute("stop"), { method: "POST", credentials: "same-origin" });
        if (!answer.ok) throw 0;
        this.#end("stopped");
        location.assign(this.getAttribute("home") || "/");
      } catch {
        stop.disabled = false;
        live.textContent = this.t.failed;
      }
    }

    #show(state) {
      // An answer that was on its way when it ended must not bring it back.
      if (this.#over) return;
      const was = this.#state;
      if (!state.impersonated) {
        if (was) this.#end("over");
        return;
      }
      this.#state = state;
      this.#ends = performance.now() + (state.expires_in === undefined ? state.expires_at - Date.now() : state.expires_in * 1000);
      const { user, actor, live } = this.#parts;
      user.textContent = cut(state.user);
      actor.textContent = cut(state.actor);
      this.dataset.state = "on";
      document.documentElement.dataset.impersonated = "true";
      if (!was) {
        live.textContent = `${this.t.acting} ${cut(state.user)}`;
        this.dispatchEvent(new CustomEvent("stagedoor-start", { bubbles: true, detail: state }));
      }
      clearInterval(this.#timer);
      this.#timer = setInterval(() => this.#tick(), 1000);
      this.#tick();
    }

    #tick() {
      const { box, time, live } = this.#parts;
      const left = Math.max(0, Math.ceil((this.#ends - performance.now()) / 1000));
      time.textContent = `${this.t.left} ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
      if (left <= 60 && !this.#warned) {
        this.#warned = true;
        box.className = "warn";
        live.textContent = this.t.warn;
        this.dispatchEvent(new CustomEvent("stagedoor-warning", { bubbles: true }));
      }
      if (left === 0) return this.#end("expired");
      if (document.visibilityState === "visible" && performance.now() - this.#asked >= (Number(this.getAttribute("poll")) || 2) * 1000) this.refresh();
    }

    #end(why) {
      if (!this.#state) return;
      clearInterval(this.#timer);
      this.#over = true;
      this.#state = null;
      delete document.documentElement.dataset.impersonated;
      const { box, live } = this.#parts;
      const back = document.createElement("a");
      back.href = this.getAttribute("home") || "/";
      back.textContent = this.t.back;
      const said = document.createElement("p");
      said.textContent = live.textContent = this.t.over;
      box.className = "";
      box.replaceChildren(said, back);
      this.#parts.stop.disabled = true;
      this.dispatchEvent(new CustomEvent("stagedoor-end", { bubbles: true, detail: { why } }));
    }
  }
  if (!customElements.get("stagedoor-banner")) customElements.define("stagedoor-banner", StagedoorBanner);
})();
