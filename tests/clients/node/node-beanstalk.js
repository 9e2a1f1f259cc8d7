'use strict'

const { Client } = require('node-beanstalk')

const asTheyAre = { serialize: (body) => body, deserialize: (body) => body }

// It says null or false where the server refused.
const job = (found, otherwise) => {
  if (found === null) throw new Error(otherwise)
  return [found.id, found.payload]
}
const found = (answer) => {
  if (answer === null || answer === false) throw new Error('NOT_FOUND')
  return answer
}

exports.open = async (port) => {
  // The server is to judge a body's size, not the client.
  const client = new Client({ host: '127.0.0.1', port, serializer: asTheyAre, maxPayloadSize: 2 ** 30 })
  await client.connect()
  const put = async (body, pri, delay, ttr) => (await client.put(body, ttr, pri, delay)).id

  return {
    put,
    // It keeps the commands in a queue of its own.
    put_all: (bodies) => Promise.all(bodies.map((body) => put(body, 100, 0, 60))),
    reserve: async (timeout) => job(await client.reserveWithTimeout(timeout), 'TIMED_OUT'),
    reserve_job: async (id) => job(await client.reserveJob(id), 'NOT_FOUND'),
    peek: async (id) => job(await client.peek(id), 'NOT_FOUND'),
    peek_ready: async () => job(await client.peekReady(), 'NOT_FOUND'),
    peek_delayed: async () => job(await client.peekDelayed(), 'NOT_FOUND'),
    peek_buried: async () => job(await client.peekBuried(), 'NOT_FOUND'),
    delete: async (id) => found(await client.delete(id)),
    release: async (id, pri, delay) => found(await client.release(id, pri, delay)),
    bury: async (id, pri) => found(await client.bury(id, pri)),
    touch: async (id) => found(await client.touch(id)),
    kick: (bound) => client.kick(bound),
    kick_job: async (id) => found(await client.kickJob(id)),
    use: (tube) => client.use(tube),
    watch: (tube) => client.watch(tube),
    ignore: async (tube) => {
      if (!await client.ignore(tube)) throw new Error('NOT_IGNORED')
    },
    pause: async (tube, seconds) => found(await client.pauseTube(tube, seconds)),
    stats: () => client.stats(),
    stats_tube: async (tube) => found(await client.statsTube(tube)),
    stats_job: async (id) => found(await client.statsJob(id)),
    tubes: () => client.listTubes(),
    watching: () => client.listTubesWatched(),
    using: () => client.listTubeUsed(),
    close: () => client.disconnect()
  }
}
