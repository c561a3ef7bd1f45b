// A resource server on jsonwebtoken, which knows no Ed25519.

import { createPublicKey } from 'node:crypto'
import jsonwebtoken from 'jsonwebtoken'
import { hear, issuer, resource, say } from './settings.js'

const { keys } = await (await fetch(`${issuer}/jwks.json`)).json()
const key = createPublicKey({ key: keys[0], format: 'jwk' })
for (let token; (token = await hear()) !== undefined; ) {
  try {
    say({ accepted: true, ...jsonwebtoken.verify(token, key, { issuer, audience: resource }) })
  } catch (error) {
    say({ accepted: false, why: error.message })
  }
}
