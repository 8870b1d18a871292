// oidc-provider with a token-exchange grant, everything in memory, no log: prints one line, where and what to post.
import { createServer } from "node:http";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { Provider } from "oidc-provider";

const GRANT = "urn:ietf:params:oauth:grant-type:token-exchange";
const API = "https://api.example.com";
const server = createServer().listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address();
const jwk = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: [{ ...jwk, use: "sig", alg: "ES256" }] },
  clients: [{
    client_id: "bench", client_secret: "a secret of the bench", grant_types: [GRANT], response_types: [],
    redirect_uris: [], token_endpoint_auth_method: "client_secret_post",
  }],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  ttl: { AccessToken: 600 },
  findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  extraTokenClaims: (ctx, token) => (token.extra?.act ? { act: token.extra.act } : undefined),
});
const api = () => new provider.ResourceServer(API, {
  audience: API, scope: "read", accessTokenFormat: "jwt", accessTokenTTL: 600, jwt: { sign: { alg: "ES256" } },
});
provider.registerGrantType(GRANT, async (ctx) => {
  const { client, params } = ctx.oidc;
  const [subject, actor] = await Promise.all([params.subject_token, params.actor_token].map((t) => provider.AccessToken.find(t)));
  if (!subject || !actor) throw new Error("no such token");
  const token = new provider.AccessToken({
    accountId: subject.accountId, client, gty: "token_exchange", scope: "read", extra: { act: { sub: actor.accountId } },
  });
  token.resourceServer = api();
  ctx.body = {
    access_token: await token.save(), issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
    token_type: "Bearer", expires_in: 600, scope: "read",
  };
}, ["subject_token", "subject_token_type", "actor_token", "actor_token_type", "scope"]);
provider.on("server_error", (ctx, error) => console.error(error));
server.on("request", provider.callback());

const client = await provider.Client.find("bench");
const opaque = (accountId) => new provider.AccessToken({ accountId, client, scope: "openid" }).save();
const body = new URLSearchParams({
  grant_type: GRANT, client_id: "bench", client_secret: "a secret of the bench", scope: "read",
  subject_token: await opaque("user_42"), subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
  actor_token: await opaque("admin_7"), actor_token_type: "urn:ietf:params:oauth:token-type:access_token",
}).toString();
console.log(JSON.stringify({ port, path: "/token", headers: { "Content-Type": "application/x-www-form-urlencoded" }, body }));
