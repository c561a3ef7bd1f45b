// A partner's integration on oauth4webapi, as its documentation shows it.

import * as oauth from 'oauth4webapi'
import { clientId, clientSecret, hear, issuer, privateKey, redirectUri, resource, say, scope } from './settings.js'

// Only for http on loopback. An authority at https needs no option.
const options = { [oauth.allowInsecureRequests]: true }
const issuerUrl = new URL(issuer)
const discovered = await oauth.discoveryRequest(issuerUrl, { algorithm: 'oauth2', ...options })
const authority = await oauth.processDiscoveryResponse(issuerUrl, discovered)
const client = { client_id: clientId }
const bySecret = oauth.ClientSecretBasic(clientSecret)

const codeVerifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const authorizationUrl = new URL(authority.authorization_endpoint)
authorizationUrl.search = new URLSearchParams({
  response_type: 'code',
  client_id: clientId,
  redirect_uri: redirectUri,
  scope,
  resource,
  state,
  code_challenge: await oauth.calculatePKCECodeChallenge(codeVerifier),
  code_challenge_method: 'S256',
})
say({ authorization_url: authorizationUrl.href })

const parameters = oauth.validateAuthResponse(authority, client, new URL(await hear()), state)
const redeemed = await oauth.authorizationCodeGrantRequest(
  authority, client, bySecret, parameters, redirectUri, codeVerifier, options)
const first = await oauth.processAuthorizationCodeResponse(authority, client, redeemed)
say({ step: 'code', ...first })

async function refresh(refreshToken) {
  const response = await oauth.refreshTokenGrantRequest(authority, client, bySecret, refreshToken, options)
  return oauth.processRefreshTokenResponse(authority, client, response)
}
const second = await refresh(first.refresh_token)
say({ step: 'refresh', ...second })

async function ownToken(authentication) {
  const response = await oauth.clientCredentialsGrantRequest(authority, client, authentication, { scope }, options)
  return oauth.processClientCredentialsResponse(authority, client, response)
}
say({ step: 'client_credentials', ...(await ownToken(bySecret)) })
say({ step: 'client_secret_post', ...(await ownToken(oauth.ClientSecretPost(clientSecret))) })
const byKey = oauth.PrivateKeyJwt(await privateKey())
say({ step: 'private_key_jwt', ...(await ownToken(byKey)) })

// Asks for a signed response (RFC 9701) if `requestJwtResponse` is set.
async function introspect(token, how) {
  const response = await oauth.introspectionRequest(authority, client, bySecret, token, { ...options, ...how })
  return oauth.processIntrospectionResponse(authority, client, response)
}
say({ step: 'introspect', ...(await introspect(second.access_token)) })
say({ step: 'signed_introspect', ...(await introspect(second.access_token, { requestJwtResponse: true })) })

const revoked = await oauth.revocationRequest(authority, client, byKey, second.refresh_token, options)
await oauth.processRevocationResponse(revoked)
const refused = await refresh(second.refresh_token).catch((error) => error)
say({ step: 'revoke', refreshing: refused.error })
