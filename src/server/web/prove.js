// "Prove it": the browser checks an entry and the growth of the log by itself (RFC 6962 hashing, C2SP checkpoints).
// The checkpoint and the key of the last visit stay in local storage: a log that was rewritten, cut, or signed by
// another key since then is noticed here, whatever the server says. A new epoch is a log of another name (origin): whether
// it may follow the old one nobody can compute, so the person is asked.
"use strict";
(() => {
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const text = new TextEncoder();
  const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
  const hash = async (...parts) => {
    const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
    parts.reduce((at, p) => (all.set(p, at), at + p.length), 0);
    return new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  };
  const leafHash = (body) => hash([0], body);
  const nodeHash = (left, right) => hash([1], left, right);

  // Sizes are BigInt: shifts of numbers end at 32 bits.
  async function rootFromInclusion(index, size, leaf, path) {
    let [fn, sn, root] = [BigInt(index), BigInt(size) - 1n, leaf];
    if (fn > sn) throw new Error("the entry lies outside the log");
    for (const p of path) {
      if (sn === 0n) throw new Error("the path is too long");
      if (fn & 1n || fn === sn) {
        root = await nodeHash(p, root);
        while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
      } else root = await nodeHash(root, p);
      fn >>= 1n; sn >>= 1n;
    }
    if (sn !== 0n) throw new Error("the path is too short");
    return root;
  }

  async function consistent(oldSize, newSize, oldRoot, newRoot, path) {
    const [m, n] = [BigInt(oldSize), BigInt(newSize)];
    if (m === n) return path.length === 0 && same(oldRoot, newRoot);
    if (m === 0n) return true;
    const list = [...path];
    if ((m & (m - 1n)) === 0n) list.unshift(oldRoot);
    if (!list.length) return false;
    let [fn, sn] = [m - 1n, n - 1n];
    while (fn & 1n) { fn >>= 1n; sn >>= 1n; }
    let [fr, sr] = [list[0], list[0]];
    for (const c of list.slice(1)) {
      if (sn === 0n) return false;
      if (fn & 1n || fn === sn) {
        fr = await nodeHash(c, fr);
        sr = await nodeHash(c, sr);
        while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
      } else sr = await nodeHash(sr, c);
      fn >>= 1n; sn >>= 1n;
    }
    return sn === 0n && same(fr, oldRoot) && same(sr, newRoot);
  }

  // A checkpoint: origin, size, root, a blank line, signatures ("— name base64(keyid ‖ signature)").
  async function openCheckpoint(note, vkey) {
    const at = note.indexOf("\n\n");
    if (at < 0) throw new Error("the checkpoint is not a note");
    const body = note.slice(0, at + 1);
    const [origin, size, root] = body.split("\n");
    // name+keyid+base64(type ‖ key): the base64 may hold "+" itself.
    const [, name, , key] = /^(.+?)\+([0-9a-f]{8})\+(.+)$/s.exec(vkey.trim()) ?? [];
    const raw = bytes(key ?? "");
    if (raw[0] !== 1 || raw.length !== 33 || name !== origin) throw new Error("the log's key is of no known kind");
    const line = note.slice(at + 2).split("\n").find((l) => l.startsWith(`— ${name} `));
    if (!line) throw new Error("the checkpoint is not signed by the log");
    const signature = bytes(line.slice(`— ${name} `.length)).slice(4);
    const imported = await crypto.subtle.importKey("raw", raw.slice(1), "Ed25519", false, ["verify"]);
    if (!(await crypto.subtle.verify("Ed25519", imported, signature, text.encode(body)))) {
      throw new Error("the signature of the checkpoint is wrong");
    }
    return { origin, size: Number(size), root: bytes(root) };
  }

  function readProof(proof) {
    const at = proof.indexOf("\n\n");
    const [kind, index, ...path] = proof.slice(0, at).split("\n");
    if (kind !== "c2sp.org/tlog-proof@v1" || !index.startsWith("index ")) throw new Error("the proof cannot be read");
    return { index: Number(index.slice(6)), path: path.map(bytes), note: proof.slice(at + 2) };
  }

  const KEPT = "stagedoor-log";
  /** What is kept of each log, by its origin. */
  const kept = () => {
    try {
      const logs = JSON.parse(localStorage.getItem(KEPT)) ?? {};
      return logs.vkey ? { [logs.vkey.split("+")[0]]: logs } : logs; // it was one log's alone once
    } catch { return {}; }
  };
  /** [origin, what is kept] of the log of the last visit. */
  const last = () => Object.entries(kept()).sort(([, a], [, b]) => b.at - a.at)[0] ?? [];
  const keep = (said, { origin, size, root }) => {
    const one = { vkey: said.vkey, size, root: btoa(String.fromCharCode(...root)), at: Date.now() };
    localStorage.setItem(KEPT, JSON.stringify({ ...kept(), [origin]: one }));
  };

  /** Another log than at the last visit, never seen here. */
  class NewLog extends Error {
    constructor(said, checkpoint, origin, before) {
      const key = (vkey) => vkey.split("+").slice(2).join("+");
      super(`This is another log than at your last visit. Then: ${origin}, ${before.size} entries. Now: ${checkpoint.origin}, `
        + `${checkpoint.size} entries, signed by ${key(said.vkey) === key(before.vkey) ? "the same" : "another"} key. After a restore a new log `
        + "begins and its first entry says why; ask whoever runs this before you accept it");
      this.accept = () => keep(said, checkpoint);
    }
  }

  async function ask(query) {
    const answer = await fetch(`/console/audit/proof?${query}`, { cache: "no-store", credentials: "same-origin" });
    if (answer.status === 401 || answer.redirected) throw new Error("you are not signed in any more; sign in and try again");
    if (!answer.ok) {
      const why = (await answer.json().catch(() => ({}))).detail;
      throw new Error(why ?? "the server cannot prove it now; try again");
    }
    return answer.json();
  }

  /** Checks that the log of the last visit is the beginning of today's; keeps today's for the next. */
  async function watch(said, checkpoint) {
    const before = kept()[checkpoint.origin];
    const [newest, lastLog] = last();
    if (!before && newest) throw new NewLog(said, checkpoint, newest, lastLog);
    if (before && newest !== checkpoint.origin) throw new Error(`${checkpoint.origin} is an old log: your last visit was to ${newest}`);
    let grown = "first visit: this checkpoint is kept for the next";
    if (before && before.vkey !== said.vkey) throw new Error("the log is signed by another key than at your last visit");
    if (before) {
      if (before.size > checkpoint.size) throw new Error(`the log had ${before.size} entries at your last visit and has ${checkpoint.size} now: entries were removed`);
      const path = (said.consistency?.hashes ?? []).map(bytes);
      const ok = await consistent(before.size, checkpoint.size, bytes(before.root), checkpoint.root, path);
      if (!ok) throw new Error(`the first ${before.size} entries are not those of your last visit: the log was rewritten`);
      grown = `unchanged since your last visit (${before.size} entries then, ${checkpoint.size} now)`;
    }
    keep(said, checkpoint);
    return grown;
  }

  async function prove(index) {
    const from = last()[1]?.size;
    const said = await ask(`index=${index}${from ? `&from=${from}` : ""}`);
    const proof = readProof(said.proof);
    if (proof.index !== index) throw new Error("the proof is for another entry");
    const checkpoint = await openCheckpoint(proof.note, said.vkey);
    const root = await rootFromInclusion(index, checkpoint.size, await leafHash(text.encode(said.body)), proof.path);
    if (!same(root, checkpoint.root)) throw new Error("this entry is not what the log was signed with: it was changed");
    for (const disclosure of said.disclosures ?? []) {
      const digest = await hash(text.encode(disclosure));
      const base64url = btoa(String.fromCharCode(...digest)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
      if (!said.body.includes(`"${base64url}"`)) throw new Error("what is disclosed is not what was sealed: it was changed");
    }
    return `It holds: entry ${index} is in the signed log of ${checkpoint.size} entries; ${await watch(said, checkpoint)}.`;
  }

  async function check() {
    const from = last()[1]?.size;
    const said = await ask(from ? `from=${from}` : "");
    const checkpoint = await openCheckpoint(said.checkpoint, said.vkey);
    return `It holds: ${await watch(said, checkpoint)}.`;
  }

  const show = async (button, work) => {
    const out = document.querySelector("[data-proof]");
    button.disabled = true;
    out.dataset.state = "busy";
    out.textContent = "Checking…";
    try {
      out.textContent = await work();
      out.dataset.state = "holds";
    } catch (error) {
      if (error instanceof NewLog) {
        const accept = Object.assign(document.createElement("button"), { type: "button", textContent: "Accept the new log" });
        accept.addEventListener("click", () => { error.accept(); show(button, work); });
        out.replaceChildren(`${error.message}. `, accept);
        out.dataset.state = "new";
        return;
      }
      out.textContent = `IT DOES NOT HOLD: ${error.message}.`;
      out.dataset.state = "fails";
    } finally {
      button.disabled = false;
    }
  };
  for (const button of document.querySelectorAll("[data-prove]")) {
    button.addEventListener("click", () => show(button, () => prove(Number(button.dataset.prove))));
  }
  for (const button of document.querySelectorAll("[data-watch]")) {
    button.addEventListener("click", () => show(button, check));
  }
})();
