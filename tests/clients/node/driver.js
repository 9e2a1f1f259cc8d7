'use strict'
// Performs operations with the client library named on the command line. Questions and answers are JSON documents, one a
// line; bodies travel as {"base64": "..."}. A library's own file gives open(port), which resolves to a table of operations.

const readline = require('node:readline')

const library = require(`./${process.argv[2]}.js`)
const connections = []

const decoded = (value) => {
  if (Array.isArray(value)) return value.map(decoded)
  return value && value.base64 !== undefined ? Buffer.from(value.base64, 'base64') : value
}

const encoded = (value) => {
  if (Buffer.isBuffer(value)) return { base64: value.toString('base64') }
  return Array.isArray(value) ? value.map(encoded) : value
}

async function perform ({ connection, operation, arguments: given }) {
  if (operation === 'open') return connections.push(await library.open(given[0])) - 1
  return connections[connection][operation](...given.map(decoded))
}

const lines = readline.createInterface({ input: process.stdin })

lines.on('line', async (line) => {
  const question = JSON.parse(line)
  const answer = { number: question.number }
  try {
    const value = await perform(question)
    answer.value = value === undefined ? null : encoded(value)
  } catch (error) {
    answer.error = String(error.code || '') + ' ' + String(error.message || error)
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
})

lines.on('close', () => process.exit(0))
