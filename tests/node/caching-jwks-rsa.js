// A resource server on jsonwebtoken and jwks-rsa, which keeps each key and reads the JWKS again for an unknown one.

import jsonwebtoken from 'jsonwebtoken'
import jwksRsa from 'jwks-rsa'
import { hear, issuer, resource, say } from './settings.js'

// Without `cacheMaxAge` it would keep a key for ten hours, whether or not it is still published.
const keys = jwksRsa({ jwksUri: `${issuer}/jwks.json`, cacheMaxAge: 300_000, rateLimit: true })
for (let token; (token = await hear()) !== undefined; ) {
  try {
    const { kid } = jsonwebtoken.decode(token, { complete: true }).header
    const key = await keys.getSigningKey(kid)
    const options = { issuer, audience: resource, algorithms: [key.alg] }
    say({ accepted: true, ...jsonwebtoken.verify(token, key.getPublicKey(), options) })
  } catch (error) {
    say({ accepted: false, why: error.message })
  }
}
