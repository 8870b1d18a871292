// A client whose types openapi-typescript generated from openapi.yaml: mints, verifies, revokes; tsc has to accept it first.
import createClient from 'openapi-fetch'
import type { components, paths } from './.recipes/schema.js'

declare const process: { env: Record<string, string> }
const api = createClient<paths>({ baseUrl: process.env.STAGEDOOR, headers: { authorization: `Bearer ${process.env.CLIENT_SECRET}` } })

const ask: components['schemas']['MintRequest'] = { user_id: 'user_42', actor: { sub: 'admin_7' }, reason: 'Invoice is missing' }
// @ts-expect-error a misspelt member does not compile
const misspelt: components['schemas']['MintRequest'] = { ...ask, reasn: 'Invoice is missing' }

const minted = await api.POST('/v1/actor_tokens', { body: ask })
if (!minted.data?.token) throw new Error(JSON.stringify(minted.error))
const { id, token, status, expires_at } = minted.data
const milliseconds: number = expires_at

const before = await api.POST('/v1/actor_tokens/verify', { body: { token } })
const actor = before.data?.active === true ? before.data.act.sub : null
await api.POST('/v1/actor_tokens/{id}/revoke', { params: { path: { id } } })
const after = await api.POST('/v1/actor_tokens/verify', { body: { token } })
const reason = after.data?.active === false ? after.data.reason : null
const refused = await api.POST('/v1/actor_tokens', { body: misspelt })
const code: components['schemas']['ErrorCode'] | undefined = refused.error?.errors[0]?.code

console.log(JSON.stringify({ status, milliseconds, actor, reason, code }))
