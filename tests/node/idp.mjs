// The company's identity provider: npm `oidc-provider` on a free loopback port.
//
//   node idp.mjs      prints one line {"issuer": "http://127.0.0.1:PORT"} when it is ready
//
// Accounts: any login name, any password (the package's own development form). A login that begins with
// `admin` has the role `admin`, every other `support`.
// Beside the provider's own routes, for the tests alone:
//   GET  /control/counts                    {"<path>": <requests so far>}
//   POST /control/rotate                    a new signing key; the old one is no longer published
//   POST /control/slow?ms=N                 every answer of metadata and keys waits N ms
//   POST /control/down?yes=1|0              metadata and keys answer 503
//   POST /control/lie?issuer=URL|           the metadata name another issuer (empty: the truth again)
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { Provider } from 'oidc-provider';

const AUDIENCE = 'https://stagedoor.example';
const OTHER_AUDIENCE = 'https://other.example';
const FRESH_SECONDS = 300;

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

function newKey() {
  const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  return { ...jwk, use: 'sig', alg: 'ES256' };
}

function staff(login) {
  return {
    realm_access: { roles: [login.startsWith('admin') ? 'admin' : 'support'] },
    groups: ['staff'],
    org: 'acme',
  };
}

const person = {
  grant_types: ['authorization_code'],
  response_types: ['code'],
  redirect_uris: ['https://console.example/callback'],
  token_endpoint_auth_method: 'none',
};

function newProvider() {
  return new Provider(issuer, {
    jwks: { keys: [newKey()] },
    cookies: { keys: ['only for tests'] },
    clients: [
      { client_id: 'support-console', ...person },
      { client_id: 'low-value-app', ...person },
      // Stagedoor's own console, for the browser tests.
      ...(process.env.CONSOLE_CALLBACK ? [{
        client_id: 'console',
        client_secret: 'console-secret',
        grant_types: ['authorization_code'],
        response_types: ['code'],
        redirect_uris: [process.env.CONSOLE_CALLBACK],
      }] : []),
      {
        client_id: 'billing-bot',
        client_secret: 'billing-bot-secret',
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    claims: { openid: ['sub', 'realm_access', 'groups', 'org'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id, ...staff(id) }) }),
    extraTokenClaims: async (ctx, token) => ({
      ...staff(token.accountId ?? token.clientId),
      ...(token.accountId ? { auth_time: ctx.oidc.entities.AuthorizationCode?.authTime, amr: ['pwd'], acr: 'silver' } : {}),
    }),
    ttl: { AccessToken: FRESH_SECONDS, ClientCredentials: FRESH_SECONDS, IdToken: FRESH_SECONDS },
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => {
          if (resource !== AUDIENCE && resource !== OTHER_AUDIENCE) throw new Error('unknown resource');
          return {
            scope: 'act', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: FRESH_SECONDS,
            jwt: { sign: { alg: 'ES256' } },
          };
        },
      },
    },
  });
}

let handler = newProvider().callback();
let [slow, down, lie] = [0, false, ''];
const counts = {};

function control(url, res) {
  const value = (name) => url.searchParams.get(name) ?? '';
  switch (url.pathname) {
    case '/control/counts': break;
    case '/control/rotate': handler = newProvider().callback(); break;
    case '/control/slow': slow = Number(value('ms')); break;
    case '/control/down': down = value('yes') === '1'; break;
    case '/control/lie': lie = value('issuer'); break;
    default: res.statusCode = 404;
  }
  res.setHeader('content-type', 'application/json');
  res.end(JSON.stringify(counts));
}

server.on('request', async (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname.startsWith('/control/')) return control(url, res);
  counts[url.pathname] = (counts[url.pathname] ?? 0) + 1;
  const metadata = url.pathname === '/.well-known/openid-configuration';
  if (metadata || url.pathname === '/jwks') {
    if (slow) await new Promise((done) => { setTimeout(done, slow); });
    if (down) { res.statusCode = 503; return res.end(); }
    if (metadata && lie) {
      res.setHeader('content-type', 'application/json');
      return res.end(JSON.stringify({ issuer: lie, jwks_uri: `${issuer}/jwks` }));
    }
  }
  return handler(req, res);
});

// Ends with the test that started it: its standard input closes when that process is gone.
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
console.log(JSON.stringify({ issuer }));
