// What Stagedoor has revoked, asked for each second. Knowledge only moves forward, and knowledge older than `bound` is none:
// then every actor token is refused. A service that cannot hear of a revocation closes; it never trusts on.
import { createRemoteJWKSet, jwtVerify } from 'jose'

const MAX_BYTES = 16 * 1024 * 1024 // more than a hundred thousand revocations
const isList = (value) => Array.isArray(value) && value.every((one) => typeof one === 'string')
const isTime = (value) => value == null || Number.isSafeInteger(value)
const clientsOf = (known) => Object.entries(known.clients ?? {})

/** Follows one issuer, `every` so many milliseconds, until `stop()`. `refuses(claims, header)` says why a token is refused, or null. */
export function followRevocations(issuer, { every = 1000, bound = 5000, log = console.error } = {}) {
  const keys = createRemoteJWKSet(new URL(`${issuer}/v1/revocations/jwks`), { cooldownDuration: 2000, cacheMaxAge: 300_000 })
  let known = null
  let stopped = false

  async function ask() {
    const answer = await fetch(`${issuer}/v1/revocations`, { redirect: 'error', signal: AbortSignal.timeout(3000) })
    if (answer.status !== 200) throw new Error(`status ${answer.status}`)
    const text = await answer.text()
    if (text.length > MAX_BYTES) throw new Error('too large')
    const { payload: next } = await jwtVerify(text, keys, {
      issuer, typ: 'stagedoor-revocations+jwt', algorithms: ['ES256', 'RS256', 'EdDSA'], requiredClaims: ['iat', 'exp'],
    })
    const whole = [next.epoch, next.seq, next.read_ms].every(Number.isSafeInteger) && Math.floor(next.read_ms / 1000) === next.iat
    const lists = isList(next.sids) && isList(next.kids) && isTime(next.all) && clientsOf(next).every(([, until]) => Number.isSafeInteger(until))
    if (next.kind !== 'snapshot' || !whole || !lists) throw new Error('not a snapshot')
    // it would outrank everything true until its time comes
    if (next.read_ms > Date.now() + bound) throw new Error('of the future')
    if (known && isOlder(next)) return // of a replica that is behind: what is known stays
    known = { ...next, sids: new Set(next.sids), kids: new Set(next.kids), clients: new Map(clientsOf(next)) }
  }
  function isOlder(next) {
    if (next.epoch !== known.epoch) return next.epoch < known.epoch
    if (next.seq !== known.seq) return next.seq < known.seq
    return next.read_ms < known.read_ms // the same, read earlier: nothing new, and no younger
  }
  async function follow() {
    await ask().catch((error) => log(`revocations of ${issuer} could not be fetched: ${error.message}`))
    if (!stopped) setTimeout(follow, every).unref()
  }
  follow()

  return {
    stop: () => { stopped = true },
    refuses({ iss, sid, iat, client_id: client }, { kid }) {
      if (!known || iss !== issuer || !Number.isFinite(iat)) return 'stale'
      // whoever stole a key chooses the header: a token that does not name its key, or its grant, hides from the list
      if (typeof kid !== 'string' || typeof sid !== 'string') return 'revoked'
      const cut = [known.all, known.clients.get(client)].some((until) => until != null && iat <= until)
      if (cut || known.sids.has(sid) || known.kids.has(kid)) return 'revoked'
      return Math.abs(Date.now() - known.read_ms) > bound ? 'stale' : null
    },
  }
}
