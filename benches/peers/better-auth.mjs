// better-auth's impersonation on SQLite (WAL, synchronous FULL, as ours): prints one line, where and what to post.
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { mkdtempSync } from "node:fs";
import { betterAuth } from "better-auth";
import { admin } from "better-auth/plugins";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";
import Database from "better-sqlite3";

const database = new Database(`${mkdtempSync(`${tmpdir()}/better-auth-`)}/auth.db`);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
const options = {
  database, secret: "a bench is no secret place, but long enough", baseURL: "http://127.0.0.1",
  emailAndPassword: { enabled: true }, plugins: [admin()], rateLimit: { enabled: false },
  logger: { level: "error" }, telemetry: { enabled: false },
};
await (await getMigrations(options)).runMigrations();
const auth = betterAuth(options);
const sign = (name) => auth.api.signUpEmail({ body: { name, email: `${name}@example.com`, password: "correct horse battery" } });
const [agent, user] = [await sign("admin"), await sign("user")];
database.prepare("UPDATE user SET role = 'admin' WHERE id = ?").run(agent.user.id);
const signed = await auth.api.signInEmail({ body: { email: "admin@example.com", password: "correct horse battery" }, asResponse: true });
const cookie = signed.headers.getSetCookie().map((c) => c.split(";")[0]).join("; ");
const server = createServer(toNodeHandler(auth)).listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({
    port: server.address().port,
    path: "/api/auth/admin/impersonate-user",
    headers: { "Content-Type": "application/json", Origin: "http://127.0.0.1", Cookie: cookie },
    body: JSON.stringify({ userId: user.user.id }),
  }));
});
