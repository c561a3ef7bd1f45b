// A partner's integration on openid-client, as its documentation shows it.

import * as client from 'openid-client'
import { clientId, clientSecret, hear, issuer, privateKey, redirectUri, resource, say, scope } from './settings.js'

// Only for http on loopback. An authority at https needs no option.
const options = { execute: [client.allowInsecureRequests] }
const config = await client.discovery(new URL(issuer), clientId, clientSecret, undefined, options)

const pkceCodeVerifier = client.randomPKCECodeVerifier()
const expectedState = client.randomState()
const authorizationUrl = client.buildAuthorizationUrl(config, {
  redirect_uri: redirectUri,
  scope,
  resource,
  state: expectedState,
  code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
  code_challenge_method: 'S256',
})
say({ authorization_url: authorizationUrl.href })

const cameBackTo = new URL(await hear())
const first = await client.authorizationCodeGrant(config, cameBackTo, { pkceCodeVerifier, expectedState })
say({ step: 'code', ...first })

const second = await client.refreshTokenGrant(config, first.refresh_token)
say({ step: 'refresh', ...second })

say({ step: 'client_credentials', ...(await client.clientCredentialsGrant(config, { scope })) })

const basic = await client.discovery(new URL(issuer), clientId, undefined, client.ClientSecretBasic(clientSecret), options)
say({ step: 'client_secret_basic', ...(await client.clientCredentialsGrant(basic)) })

const byKey = await client.discovery(new URL(issuer), clientId, undefined, client.PrivateKeyJwt(await privateKey()), options)
say({ step: 'private_key_jwt', ...(await client.clientCredentialsGrant(byKey)) })

say({ step: 'introspect', ...(await client.tokenIntrospection(byKey, second.access_token)) })

await client.tokenRevocation(config, second.refresh_token)
const refused = await client.refreshTokenGrant(config, second.refresh_token).catch((error) => error)
say({ step: 'revoke', refreshing: refused.error })
