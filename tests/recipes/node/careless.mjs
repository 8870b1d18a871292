// What many services do: the signature is right, so the user is whoever `sub` says. Here to be caught.
import { createServer } from 'node:http'
import { createRemoteJWKSet, jwtVerify } from 'jose'

const { STAGEDOOR, PORT } = process.env
const keys = createRemoteJWKSet(new URL(`${STAGEDOOR}/.well-known/jwks.json`))

createServer(async (req, res) => {
  try {
    const { payload } = await jwtVerify(req.headers.authorization.split(' ')[1], keys)
    res.end(`you are ${payload.sub}`)
  } catch {
    res.writeHead(401, { 'www-authenticate': 'Bearer' }).end()
  }
}).listen(Number(PORT), '127.0.0.1')
