// A resource server on jose: it verifies access tokens by the authority's keys.

import { createRemoteJWKSet, jwtVerify } from 'jose'
import { hear, issuer, resource, say } from './settings.js'

const keys = createRemoteJWKSet(new URL(`${issuer}/jwks.json`))
for (let token; (token = await hear()) !== undefined; ) {
  try {
    const { payload } = await jwtVerify(token, keys, { issuer, audience: resource, typ: 'at+jwt' })
    say({ accepted: true, ...payload })
  } catch (error) {
    say({ accepted: false, why: error.code })
  }
}
