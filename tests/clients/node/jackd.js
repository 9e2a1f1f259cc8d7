'use strict'

const Client = require('jackd')

const plain = ({ id, payload }) => [id, payload]

exports.open = async (port) => {
  const client = new Client()
  await client.connect({ host: '127.0.0.1', port })

  return {
    // It turns every object into JSON, buffers too, so bodies are handed over as text.
    put: (body, priority, delay, ttr) => client.put(body.toString(), { priority, delay, ttr }),
    reserve: async (timeout) => plain(await client.reserveWithTimeout(timeout)),
    reserve_job: async (id) => plain(await client.reserveJob(id)),
    peek: async (id) => plain(await client.peek(id)),
    peek_ready: async () => plain(await client.peekReady()),
    peek_delayed: async () => plain(await client.peekDelayed()),
    peek_buried: async () => plain(await client.peekBuried()),
    delete: (id) => client.delete(id),
    release: (id, priority, delay) => client.release(id, { priority, delay }),
    bury: (id, priority) => client.bury(id, priority),
    touch: (id) => client.touch(id),
    kick: (bound) => client.kick(bound),
    kick_job: (id) => client.kickJob(id),
    use: (tube) => client.use(tube),
    watch: (tube) => client.watch(tube),
    ignore: (tube) => client.ignore(tube),
    stats: () => client.stats(),
    stats_tube: (tube) => client.statsTube(tube),
    stats_job: (id) => client.statsJob(id),
    tubes: () => client.listTubes(),
    watching: () => client.listTubesWatched(),
    using: () => client.listTubeUsed(),
    close: () => new Promise((resolve) => {
      client.socket.on('close', () => resolve())
      client.quit()
    })
  }
}
