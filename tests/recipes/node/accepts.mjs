// Reads {issuer, audience, jwksUri, tokens: {ALG: token}} from standard input, has every stock verifier look at
// every token, and prints [{library, alg, sub, actor} | {library, alg, error}].
import { createPublicKey } from 'node:crypto'
import { text } from 'node:stream/consumers'
import { JwtVerifier } from 'aws-jwt-verify'
import { createVerifier } from 'fast-jwt'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import jsonwebtoken from 'jsonwebtoken'
import jwksRsa from 'jwks-rsa'

const { issuer, audience, jwksUri, tokens } = JSON.parse(await text(process.stdin))
const jwks = await (await fetch(jwksUri)).json()
const pem = (kid) => createPublicKey({ key: jwks.keys.find((key) => key.kid === kid), format: 'jwk' }).export({ type: 'spki', format: 'pem' })

const libraries = {
  jose: async (token, alg) => {
    const options = { issuer, audience, algorithms: [alg], typ: 'at+jwt' }
    return (await jwtVerify(token, createRemoteJWKSet(new URL(jwksUri)), options)).payload
  },
  'jsonwebtoken+jwks-rsa': async (token, alg) => {
    const { header } = jsonwebtoken.decode(token, { complete: true })
    const key = (await jwksRsa({ jwksUri }).getSigningKey(header.kid)).getPublicKey()
    return jsonwebtoken.verify(token, key, { issuer, audience, algorithms: [alg] })
  },
  'fast-jwt': (token, alg) =>
    createVerifier({ key: async ({ header }) => pem(header.kid), algorithms: [alg], allowedIss: issuer, allowedAud: audience })(token),
  // It fetches keys over https only; so they are handed over.
  'aws-jwt-verify': async (token) => {
    const verifier = JwtVerifier.create({ issuer, audience, jwksUri: 'https://unused.invalid/jwks.json' })
    verifier.cacheJwks(jwks)
    return verifier.verify(token)
  },
}

const results = []
for (const [library, verify] of Object.entries(libraries)) {
  for (const [alg, token] of Object.entries(tokens)) {
    try {
      const { sub, act } = await verify(token, alg.split(' ')[0]) // "ES256", "ES256 forged"
      results.push({ library, alg, sub, actor: act?.sub })
    } catch (error) {
      results.push({ library, alg, error: String(error.message) })
    }
  }
}
console.log(JSON.stringify(results))
