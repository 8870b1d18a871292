// A service that reads user and actor, with jose. Whoever acts as somebody else is refused, except where a route opts in.
import { createServer } from 'node:http'
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose'

const { STAGEDOOR, HOME_ISSUER, AUDIENCE, PORT } = process.env // issuer of actor tokens, issuer of users' own tokens
const keys = new Map([STAGEDOOR, HOME_ISSUER].map((iss) => [iss, createRemoteJWKSet(new URL(`${iss}/.well-known/jwks.json`))]))
const isId = (value) => typeof value === 'string' && value !== ''

async function identity(req) {
  const token = /^Bearer ([\w.-]+)$/i.exec(req.headers.authorization)?.[1]
  const issuer = decodeJwt(token).iss // believed only as far as to choose whose keys must have signed
  const { payload } = await jwtVerify(token, keys.get(issuer), {
    issuer, audience: AUDIENCE, algorithms: ['ES256'], typ: 'at+jwt', requiredClaims: ['sub', 'exp'], maxTokenAge: '1h',
    clockTolerance: 5, // who signed may be ahead of us
  })
  if (payload.exp * 1000 <= Date.now()) throw new Error('over') // no grace at the end
  const acted = Object.hasOwn(payload, 'act') // in a token of any issuer; null and false do not mean "nobody"
  if (!isId(payload.sub) || payload.cnf !== undefined || (acted ? !isId(payload.act?.sub) : issuer === STAGEDOOR)) throw new Error('no user or no actor')
  return { user: payload.sub, actor: acted ? payload.act.sub : null, scopes: String(payload.scope ?? '').split(' ') }
}

createServer(async (req, res) => {
  const who = await identity(req).catch(() => null)
  if (!who) return res.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end()
  const open = req.url === '/orders' && who.scopes.includes('read') // the one route that opts in
  if (who.actor && !open) return res.writeHead(403, { 'www-authenticate': 'Bearer error="insufficient_scope"' }).end()
  res.setHeader('impersonated', who.actor ? '?1' : '?0').end(JSON.stringify(who))
}).listen(Number(PORT), '127.0.0.1')
