// The wire's work done by hyperdht's Noise stream, over TCP or UDX, both ends in this process; prints a line of JSON.
const net = require('net')
const path = require('path')

const modules = path.join(process.cwd(), 'node_modules')
const NoiseSecretStream = require(path.join(modules, '@hyperswarm', 'secret-stream'))

const CALLS = 20000, WINDOW = 64, SIZE = 1024, ROUNDS = 3, BULK = 64 << 20, PIECE = 1 << 16

function cpu () {
  const used = process.cpuUsage()
  return (used.user + used.system) / 1e6
}

function calls (client) {
  return new Promise((resolve) => {
    let sent = 0, heard = 0
    const data = Buffer.alloc(SIZE)
    client.removeAllListeners('data')
    client.on('data', () => {
      if (++heard === CALLS) resolve()
      else if (sent < CALLS) { sent++; client.write(data) }
    })
    for (; sent < WINDOW; sent++) client.write(data)
  })
}

function bulk (client) {
  return new Promise((resolve) => {
    let left = BULK
    client.removeAllListeners('data')
    client.on('data', (piece) => { left -= piece.byteLength; if (left <= 0) resolve() })
    client.write(Buffer.from('bulk'))
  })
}

async function pour (stream) {
  for (let left = BULK; left > 0; left -= PIECE) {
    if (!stream.write(Buffer.alloc(PIECE))) await new Promise((resolve) => stream.once('drain', resolve))
  }
}

async function best (work, amount) {
  let figure = 0
  for (let round = 0; round < ROUNDS; round++) {
    const began = cpu()
    await work()
    figure = Math.max(figure, amount / (cpu() - began))
  }
  return figure
}

function serve (stream) {
  stream.on('data', (data) => data.byteLength === 4 ? pour(stream) : stream.write(data))
  stream.on('error', () => {})
}

async function overTcp () {
  const server = net.createServer((socket) => serve(new NoiseSecretStream(false, socket)))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return new NoiseSecretStream(true, net.connect(server.address().port, '127.0.0.1'))
}

async function overUdx () {
  const DHT = require(path.join(modules, 'hyperdht'))
  const testnet = await require(path.join(modules, 'hyperdht', 'testnet'))(3)
  const server = testnet.createNode().createServer(serve)
  await server.listen(DHT.keyPair())
  return testnet.createNode().connect(server.publicKey)
}

async function main () {
  const client = await (process.argv[2] === 'udx' ? overUdx() : overTcp())
  client.on('error', () => {})
  await client.opened
  const figures = {
    calls: await best(() => calls(client), CALLS),
    bulk_mb: await best(() => bulk(client), BULK / 1e6)
  }
  console.log(JSON.stringify(figures))
  process.exit(0)
}

main()
