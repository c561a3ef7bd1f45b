// A resource server on jsonwebtoken that reads the keys when it is told to. The library knows no Ed25519.

import { createPublicKey } from 'node:crypto'
import jsonwebtoken from 'jsonwebtoken'
import { hear, issuer, resource, say } from './settings.js'

let keys = {}
for (let token; (token = await hear()) !== undefined; ) {
  if (token === 'keys') {
    const set = await (await fetch(`${issuer}/jwks.json`)).json()
    keys = Object.fromEntries(set.keys.map((key) => [key.kid, key]))
    say({ keys: set.keys.length })
    continue
  }
  try {
    const jwk = keys[jsonwebtoken.decode(token, { complete: true }).header.kid]
    const key = createPublicKey({ key: jwk, format: 'jwk' })
    say({ accepted: true, ...jsonwebtoken.verify(token, key, { issuer, audience: resource, algorithms: [jwk.alg] }) })
  } catch (error) {
    say({ accepted: false, why: error.message })
  }
}
