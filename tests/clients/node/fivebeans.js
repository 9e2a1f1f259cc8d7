'use strict'

const { client: Client } = require('fivebeans')

exports.open = (port) => new Promise((resolve, reject) => {
  const client = new Client('127.0.0.1', port)

  // Its callbacks get (error), (null, value) or, for a job, (null, id, body).
  const call = (method, ...given) => new Promise((resolve, reject) => {
    client[method](...given, (error, ...values) => {
      if (error) reject(new Error(error))
      else resolve(values.length > 1 ? values : values[0])
    })
  })
  const method = (name) => (...given) => call(name, ...given)
  const put = (body, pri, delay, ttr) => call('put', pri, delay, ttr, body)

  client.on('error', reject)
  client.on('connect', () => resolve({
    put,
    put_all: (bodies) => Promise.all(bodies.map((body) => put(body, 100, 0, 60))),
    reserve: method('reserve_with_timeout'),
    peek: method('peek'),
    peek_ready: method('peek_ready'),
    peek_delayed: method('peek_delayed'),
    peek_buried: method('peek_buried'),
    delete: method('destroy'),
    release: method('release'),
    bury: method('bury'),
    touch: method('touch'),
    kick: method('kick'),
    kick_job: method('kick_job'),
    use: method('use'),
    watch: method('watch'),
    ignore: method('ignore'),
    pause: method('pause_tube'),
    stats: method('stats'),
    stats_tube: method('stats_tube'),
    stats_job: method('stats_job'),
    tubes: method('list_tubes'),
    watching: method('list_tubes_watched'),
    using: method('list_tube_used'),
    close: () => new Promise((resolve) => {
      client.on('close', () => resolve())
      client.end()
    })
  }))
  client.connect()
})
