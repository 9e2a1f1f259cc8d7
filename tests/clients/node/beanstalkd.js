'use strict'

const { default: Client } = require('beanstalkd')

exports.open = async (port) => {
  const client = await new Client('127.0.0.1', port).connect()
  const socket = client.connection
  const method = (name) => (...given) => client[name](...given)
  const put = (body, pri, delay, ttr) => client.put(pri, delay, ttr, body)

  return {
    put,
    // It keeps the commands in a queue of its own.
    put_all: (bodies) => Promise.all(bodies.map((body) => put(body, 100, 0, 60))),
    reserve: method('reserveWithTimeout'),
    peek: method('peek'),
    peek_ready: method('peekReady'),
    peek_delayed: method('peekDelayed'),
    peek_buried: method('peekBuried'),
    delete: method('delete'),
    release: method('release'),
    bury: method('bury'),
    touch: method('touch'),
    kick_job: method('kickJob'),
    use: method('use'),
    watch: method('watch'),
    ignore: method('ignore'),
    pause: method('pauseTube'),
    stats: method('stats'),
    stats_tube: method('statsTube'),
    stats_job: method('statsJob'),
    tubes: method('listTubes'),
    watching: method('listTubesWatched'),
    using: method('listTubeUsed'),
    close: () => new Promise((resolve) => {
      socket.on('close', () => resolve())
      client.quit()
    })
  }
}
