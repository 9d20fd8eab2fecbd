// A contender of `cargo bench --bench speed`: Fastify and better-sqlite3, durable before the answer.
// With GROUP=1, what came in during one turn of the event loop is committed together.
const { createHash, randomBytes } = require('node:crypto')
const Database = require('better-sqlite3')
const fastify = require('fastify')({ logger: false })

const database = new Database(process.env.DATABASE)
for (const pragma of ['journal_mode = wal', 'synchronous = full', 'foreign_keys = on', 'secure_delete = on']) {
  database.pragma(pragma)
}
const statements = require('../statements.json')
const prepared = Object.fromEntries(
  Object.entries(statements).map(([name, text]) => [name, database.prepare(text)]),
)

function write({ id, body, result }) {
  const job = prepared.find_job.get(id)
  prepared.find_outputs.all(job.seq)
  prepared.find_deliveries.all(job.seq)
  const digest = createHash('sha256').update(body).digest()
  const deliveryId = randomBytes(16)
  const now = Date.now()
  const delivery = prepared.insert_delivery.run(deliveryId, job.seq, now, body.length, digest).lastInsertRowid
  prepared.insert_body.run(delivery, body)
  prepared.update_job.run(now, delivery, digest, job.seq)
  prepared.upsert_output.run(job.seq, result.outputFiles.meshes[0].url)
  const data = { deliveryId: deliveryId.toString('hex'), status: 'succeeded', success: true }
  prepared.insert_event.run(id, now, JSON.stringify(data))
}

const one = database.transaction(write)
const many = database.transaction((callbacks) => callbacks.forEach(write))

let waiting = []
function commit() {
  const batch = waiting
  waiting = []
  many(batch)
  for (const callback of batch) callback.done()
}

fastify.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_, body, done) => done(null, body))
fastify.post('/callbacks/:id/:signature', async (request) => {
  const id = Buffer.from(request.params.id.replaceAll('-', ''), 'hex')
  const callback = { id, body: request.body, result: JSON.parse(request.body) }
  if (process.env.GROUP) {
    await new Promise((done) => {
      if (waiting.push({ ...callback, done }) === 1) setImmediate(commit)
    })
  } else {
    one(callback)
  }
  return { outcome: 'stored' }
})
fastify.listen({ host: '127.0.0.1', port: 0 }).then((address) => console.log(address))
