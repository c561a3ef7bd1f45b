// A resource server on jose that reads the keys when it is told to, and not for an unknown key.

import { createLocalJWKSet, jwtVerify } from 'jose'
import { hear, issuer, resource, say } from './settings.js'

let keys
for (let token; (token = await hear()) !== undefined; ) {
  if (token === 'keys') {
    const set = await (await fetch(`${issuer}/jwks.json`)).json()
    keys = createLocalJWKSet(set)
    say({ keys: set.keys.length })
    continue
  }
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience: resource, typ: 'at+jwt' })
    say({ accepted: true, ...payload })
  } catch (error) {
    say({ accepted: false, why: error.code })
  }
}
