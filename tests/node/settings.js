// What a partner's operator hands over, from the environment, and the conversation with the test.

import { createInterface } from 'node:readline/promises'

export const {
  TENANT_AUTHORITY_URL: issuer,
  CLOUD_API_URL: resource,
  CLIENT_ID: clientId,
  CLIENT_SECRET: clientSecret,
  REDIRECT_URI: redirectUri,
  SCOPE: scope,
} = process.env

/** The client's private key, which the client generated, and whose public half the operator registered. */
export async function privateKey() {
  const { kid, ...jwk } = JSON.parse(process.env.PRIVATE_KEY)
  const key = await crypto.subtle.importKey('jwk', jwk, { name: jwk.crv }, false, ['sign'])
  return { key, kid }
}

export const say = (what) => console.log(JSON.stringify(what))

const input = createInterface({ input: process.stdin })
const lines = input[Symbol.asyncIterator]()

/** The next line of standard input; undefined after the last one. */
export async function hear() {
  return (await lines.next()).value
}
