// Sends events and verifies the page that an alert sends.
// npm ci; CLOUD_API_KEY=pk_live_… node example.js
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Webhook } from 'standardwebhooks'

const api = process.env.CLOUD_API_URL ?? 'http://127.0.0.1:8080/v1'

// Calls the API. 429, 500 and 503 are tried again; one key for all tries makes that safe.
async function call(method, path, body) {
  const headers = {
    authorization: `Bearer ${process.env.CLOUD_API_KEY}`,
    'content-type': 'application/json',
    'idempotency-key': randomUUID(),
  }
  for (let attempt = 0; ; attempt++) {
    const answer = await fetch(api + path, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(30_000) })
    if (answer.ok) return answer.json()
    if (![429, 500, 503].includes(answer.status) || attempt === 4) {
      throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`)
    }
    await sleep(1000 * Number(answer.headers.get('retry-after') ?? 2 ** attempt))
  }
}

const receiver = createServer(async (request, response) => {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  // The bytes as they came: a body that is written anew has another signature.
  receiver.emit('page', request.headers, Buffer.concat(chunks))
  response.writeHead(204).end()
})
receiver.listen(0, '127.0.0.1')
await once(receiver, 'listening')
const received = once(receiver, 'page', { signal: AbortSignal.timeout(60_000) })

const account = `acc_${randomUUID().slice(0, 13)}`
await call('PUT', `/accounts/${account}/quotas/api.requests`, { limit: 100, period: 'month' })
const url = `http://127.0.0.1:${receiver.address().port}/page`
const channel = await call('POST', '/channels', { type: 'webhook', name: 'example', url })
await call('POST', '/alerts', { account_id: account, rule: 'quota_percent > 85', channel: channel.id })

// Each event has an id, so that one which is sent twice counts once.
const events = Array.from({ length: 9 }, (_, n) => ({ id: `${account}-${n}`, account_id: account, metric: 'api.requests', value: 10 }))
await call('POST', '/events/batch', { events })
const { receipt } = await call('POST', '/events/batch', { events })
const usage = await call('GET', `/accounts/${account}/usage?window=5m&after=${receipt}`)
assert.equal(usage.quotas[0].used, 90)

const [headers, body] = await received
const webhook = new Webhook(channel.secret)
const page = webhook.verify(body, headers)
assert.equal(page.type, 'alert.firing')
assert.equal(page.data.account_id, account)
assert.throws(() => webhook.verify(`${body} `, headers), { name: 'WebhookVerificationError' })
console.log(`node: ${page.type} of ${account} is genuine, and a forged one is not`)
receiver.closeAllConnections()
receiver.close()
