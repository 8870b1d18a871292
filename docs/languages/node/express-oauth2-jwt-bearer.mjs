// A service that reads user and actor, with express-oauth2-jwt-bearer. Whoever acts as somebody else is refused, except where a route opts in.
import express from 'express'
import { auth, requiredScopes } from 'express-oauth2-jwt-bearer'

const { STAGEDOOR, HOME_ISSUER, AUDIENCE, PORT } = process.env // issuer of actor tokens, issuer of users' own tokens
const isId = (value) => typeof value === 'string' && value !== ''
const issuers = [STAGEDOOR, HOME_ISSUER].map((issuer) => ({ issuer, alg: 'ES256', jwksUri: `${issuer}/.well-known/jwks.json` }))

const signedIn = auth({
  mcd: { issuers }, audience: AUDIENCE, strict: true, maxTokenAge: 3600, clockTolerance: 5, dpop: { enabled: false },
  validators: {
    iss: (iss) => [STAGEDOOR, HOME_ISSUER].includes(iss), // by itself the library overlooks a slash at the end
    exp: (exp) => typeof exp === 'number' && exp * 1000 > Date.now(), // the tolerance is for whoever signed ahead of us
    sub: isId,
    cnf: (cnf) => cnf === undefined, // bound to a key: no bearer token
    act: (act, claims) => (act === undefined ? claims.iss !== STAGEDOOR : isId(act?.sub)), // null does not mean "nobody"
  },
})
const inPerson = (req, res, next) => (req.auth.payload.act ? res.status(403).end() : next())
const show = (req, res) => {
  const { sub, act } = req.auth.payload
  res.set('impersonated', act ? '?1' : '?0').json({ user: sub, actor: act?.sub ?? null })
}

const app = express()
// The library also takes tokens from the query and from forms; queries stand in logs.
app.use((req, res, next) => (req.headers.authorization ? next() : res.set('www-authenticate', 'Bearer').sendStatus(401)))
app.get('/me', signedIn, inPerson, show)
app.get('/orders', signedIn, requiredScopes('read'), show) // opts in
// The library's own challenge quotes the token, which not every header can carry.
app.use((error, req, res, next) => res.set('www-authenticate', 'Bearer error="invalid_token"').sendStatus(error.status ?? 401))
app.listen(Number(PORT), '127.0.0.1')
