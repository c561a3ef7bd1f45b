// A partner's integration on openid-client whose tokens are bound to a key (RFC 9449): it authenticates by a key, pushes its
// requests (RFC 9126), and proves with each call that it holds the key of its tokens.

import * as client from 'openid-client'
import { clientId, hear, issuer, privateKey, redirectUri, resource, say, scope } from './settings.js'

// Only for http on loopback. An authority at https needs no option.
const options = { execute: [client.allowInsecureRequests] }
const authentication = client.PrivateKeyJwt(await privateKey())
const config = await client.discovery(new URL(issuer), clientId, undefined, authentication, options)

// Keep the key pair as long as the tokens: whoever has both can use them.
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'))

const pkceCodeVerifier = client.randomPKCECodeVerifier()
const expectedState = client.randomState()
const authorizationUrl = await client.buildAuthorizationUrlWithPAR(
  config,
  {
    redirect_uri: redirectUri,
    scope,
    resource,
    state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
  },
  { DPoP },
)
say({ authorization_url: authorizationUrl.href })

const cameBackTo = new URL(await hear())
const checks = { pkceCodeVerifier, expectedState }
const first = await client.authorizationCodeGrant(config, cameBackTo, checks, undefined, { DPoP })
say({ step: 'code', ...first })

const second = await client.refreshTokenGrant(config, first.refresh_token, undefined, { DPoP })
say({ step: 'refresh', ...second })

say({ step: 'client_credentials', ...(await client.clientCredentialsGrant(config, { scope }, { DPoP })) })

say({ step: 'introspect', ...(await client.tokenIntrospection(config, second.access_token)) })

await client.tokenRevocation(config, second.refresh_token)
const refused = await client.refreshTokenGrant(config, second.refresh_token, undefined, { DPoP }).catch((error) => error)
say({ step: 'revoke', refreshing: refused.error })
