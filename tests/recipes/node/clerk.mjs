// Clerk's SDKs as they come from npm, told by their own variables (CLERK_API_URL, CLERK_SECRET_KEY,
// CLERK_PUBLISHABLE_KEY) to talk to Stagedoor. Prints what they saw, as JSON.
import { clerkClient, clerkMiddleware, createClerkClient, getAuth, verifyToken } from '@clerk/express'
import express from 'express'

const { CLERK_API_URL: apiUrl, CLERK_SECRET_KEY: secretKey, CLERK_PUBLISHABLE_KEY: publishableKey } = process.env
const person = { userId: 'user_42', actor: { sub: 'admin_7', name: 'dropped' }, expiresInSeconds: 3600, sessionMaxDurationInSeconds: 1800 }
const failure = (error) => ({ name: error.name, status: error.status, traceId: error.clerkTraceId, errors: error.errors, reason: error.reason })
const fails = (promise) => promise.then((value) => ({ unexpected: value }), failure)

const created = await clerkClient.actorTokens.create(person)
const bearer = { headers: { authorization: `Bearer ${created.token}` } }
const verified = await verifyToken(created.token, { secretKey, apiUrl, authorizedParties: ['https://app.example.com'] })
const otherParty = await fails(verifyToken(created.token, { secretKey, apiUrl, authorizedParties: ['https://evil.example'] }))
const tampered = await fails(verifyToken(`${created.token.slice(0, -8)}AAAAAAAA`, { secretKey, apiUrl }))

const backend = createClerkClient({ apiUrl, secretKey, publishableKey })
const state = await backend.authenticateRequest(new Request('https://app.example.com/me', bearer))
const nobody = await backend.authenticateRequest(new Request('https://app.example.com/me'))

// A product's own service, as Clerk's documentation writes it.
const app = express().use(clerkMiddleware())
app.get('/me', (req, res) => {
  const { isAuthenticated, userId, sessionId, actor } = getAuth(req)
  res.json({ isAuthenticated, userId, sessionId, actor: actor ?? null })
})
const server = app.listen(0, '127.0.0.1')
await new Promise((ready) => server.on('listening', ready))
const me = async (init) => (await fetch(`http://127.0.0.1:${server.address().port}/me`, init)).json()
const [middleware, middlewareNobody] = [await me(bearer), await me()]
server.close()

const revoked = await clerkClient.actorTokens.revoke(created.id)
const stranger = createClerkClient({ apiUrl, secretKey: 'sk_live_nobody', publishableKey })
console.log(JSON.stringify({
  created, verified, otherParty, tampered, middleware, middlewareNobody, revoked,
  authenticated: { status: state.status, actor: state.toAuth().actor, user: state.toAuth().userId },
  nobody: { status: nobody.status, reason: nobody.reason },
  afterRevoke: await verifyToken(created.token, { secretKey, apiUrl }).then(() => 'still accepted', failure),
  revokedAgain: await fails(clerkClient.actorTokens.revoke(created.id)),
  unknown: await fails(clerkClient.actorTokens.revoke('act_nobody')),
  noUser: await fails(clerkClient.actorTokens.create({ actor: { sub: 'admin_7' } })),
  denied: await fails(clerkClient.actorTokens.create({ ...person, actor: { sub: 'somebody_else' } })),
  stranger: await fails(stranger.actorTokens.create(person)),
}))
