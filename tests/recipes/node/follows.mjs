// A service with docs/languages/node/revocations.mjs beside its verification, as docs/languages/node.md shows it.
import { createServer } from 'node:http'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { followRevocations } from './.recipes/revocations.mjs'

const { STAGEDOOR, AUDIENCE, PORT, EVERY_MS } = process.env
const keys = createRemoteJWKSet(new URL(`${STAGEDOOR}/.well-known/jwks.json`))
const revocations = followRevocations(STAGEDOOR, { every: Number(EVERY_MS), log: () => {} })

createServer(async (req, res) => {
  const options = { issuer: STAGEDOOR, audience: AUDIENCE, typ: 'at+jwt' }
  const { payload, protectedHeader } = await jwtVerify(req.headers.authorization.slice('Bearer '.length), keys, options)
  res.end(revocations.refuses(payload, protectedHeader) ?? 'in')
}).listen(Number(PORT), '127.0.0.1')
