// findNode by npm's hyperdht, all nodes in this process on loopback, all persistent; prints a line of JSON.
//   node hyperdht_lookups.js NODES LOOKUPS
const crypto = require('crypto')
const path = require('path')

const modules = path.join(process.cwd(), 'node_modules')
const testnet = require(path.join(modules, 'hyperdht', 'testnet'))
const { id } = require(path.join(modules, 'dht-rpc', 'lib', 'peer'))

const COUNT = Number(process.argv[2]), LOOKUPS = Number(process.argv[3])

function cpu () {
  const used = process.cpuUsage()
  return (used.user + used.system) / 1000
}

function requests (nodes) {
  return nodes.reduce((sum, node) => sum + node.stats.requests.total, 0)
}

function closest (nodes, target, k) {
  const ids = nodes.map((node) => id('127.0.0.1', node.address().port))
  const byDistance = ids.map((own) => [Buffer.from(own.map((byte, i) => byte ^ target[i])), own])
  byDistance.sort((a, b) => Buffer.compare(a[0], b[0]))
  return new Set(byDistance.slice(0, k).map(([, own]) => own.toString('hex')))
}

async function main () {
  const { nodes } = await testnet(COUNT)
  const jobs = []
  for (let i = 0; i < LOOKUPS; i++) {
    const node = nodes[crypto.randomInt(nodes.length)], target = crypto.randomBytes(32)
    jobs.push([node, target, closest(nodes.filter((other) => other !== node), target, 20)])
  }
  const walls = []
  let right = 0, wanted = 0
  const before = requests(nodes), began = cpu()
  for (const [node, target, truth] of jobs) {
    const at = performance.now()
    const query = node.findNode(target)
    await query.finished()
    walls.push(performance.now() - at)
    right += query.closestReplies.filter((reply) => truth.has(reply.from.id.toString('hex'))).length
    wanted += truth.size
  }
  const spent = cpu() - began
  walls.sort((a, b) => a - b)
  console.log(JSON.stringify({
    datagrams: 2 * (requests(nodes) - before) / LOOKUPS,
    cpu_ms: spent / LOOKUPS,
    p50_ms: walls[LOOKUPS >> 1],
    p99_ms: walls[Math.floor(0.99 * LOOKUPS)],
    recall: right / wanted
  }))
  process.exit(0)
}

main()
