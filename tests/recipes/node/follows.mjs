// A service with docs/languages/node/revocations.mjs beside its verification, as docs/languages/node.md shows it.
import { createServer } from 'node:http'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { followRevocations } from './.recipes/revocations.mjs'

const { STAGEDOOR, AUDIENCE, PORT, EVERY_MS } = process.env
const keys = createRemoteJWKSet(new URL(`${STAGEDOOR}/.well-known/jwks.json`))
const revocations = followRevocations(STAGEDOOR, { every: Number(EVERY_MS), log: () => {} })

createServer(async (req, res) => {
  const options = { issuer: STAGEDOOR, audience: AUDIENCE, typ: 'at+jwt' }
  const token = (req.headers.authorization ?? '').slice('Bearer '.length)
  const verified = await jwtVerify(token, keys, options).catch(() => null)
  if (!verified) return res.writeHead(401).end('invalid')
  const { payload, protectedHeader } = verified
  const refused = revocations.refuses(payload, protectedHeader)
  res.statusCode = refused ? 401 : 200
  res.end(refused ?? 'in')
}).listen(Number(PORT), '127.0.0.1')
