// A partner's integration on oauth4webapi whose tokens are bound to a key (RFC 9449), with pushed requests (RFC 9126).

import * as oauth from 'oauth4webapi'
import { clientId, hear, issuer, privateKey, redirectUri, resource, say, scope } from './settings.js'

// Only for http on loopback. An authority at https needs no option.
const insecure = { [oauth.allowInsecureRequests]: true }
const issuerUrl = new URL(issuer)
const discovered = await oauth.discoveryRequest(issuerUrl, { algorithm: 'oauth2', ...insecure })
const authority = await oauth.processDiscoveryResponse(issuerUrl, discovered)
const client = { client_id: clientId }
const byKey = oauth.PrivateKeyJwt(await privateKey())
const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
const options = { DPoP, ...insecure }

/** Sends a request, and once more if the authority asks for its nonce in the proof (RFC 9449 §8). */
async function send(request, process) {
  try {
    return await process(await request())
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error
    return process(await request())
  }
}

const codeVerifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const parameters = new URLSearchParams({
  response_type: 'code',
  client_id: clientId,
  redirect_uri: redirectUri,
  scope,
  resource,
  state,
  code_challenge: await oauth.calculatePKCECodeChallenge(codeVerifier),
  code_challenge_method: 'S256',
})
const pushed = await send(
  () => oauth.pushedAuthorizationRequest(authority, client, byKey, parameters, options),
  (response) => oauth.processPushedAuthorizationResponse(authority, client, response),
)
const authorizationUrl = new URL(authority.authorization_endpoint)
authorizationUrl.search = new URLSearchParams({ client_id: clientId, request_uri: pushed.request_uri })
say({ authorization_url: authorizationUrl.href })

const back = oauth.validateAuthResponse(authority, client, new URL(await hear()), state)
const first = await send(
  () => oauth.authorizationCodeGrantRequest(authority, client, byKey, back, redirectUri, codeVerifier, options),
  (response) => oauth.processAuthorizationCodeResponse(authority, client, response),
)
say({ step: 'code', ...first })

const refresh = (refreshToken) =>
  send(
    () => oauth.refreshTokenGrantRequest(authority, client, byKey, refreshToken, options),
    (response) => oauth.processRefreshTokenResponse(authority, client, response),
  )
const second = await refresh(first.refresh_token)
say({ step: 'refresh', ...second })

const own = await send(
  () => oauth.clientCredentialsGrantRequest(authority, client, byKey, { scope }, options),
  (response) => oauth.processClientCredentialsResponse(authority, client, response),
)
say({ step: 'client_credentials', ...own })

const introspected = await oauth.introspectionRequest(authority, client, byKey, second.access_token, insecure)
say({ step: 'introspect', ...(await oauth.processIntrospectionResponse(authority, client, introspected)) })

await oauth.processRevocationResponse(
  await oauth.revocationRequest(authority, client, byKey, second.refresh_token, insecure))
const refused = await refresh(second.refresh_token).catch((error) => error)
say({ step: 'revoke', refreshing: refused.error })
